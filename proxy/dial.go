package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/trunk"
)

// quietAttempts is how often an instance that shares its content with another
// may fail before that is worth a warning, though neither is connected.
const quietAttempts = 5

// dial keeps the connection to a peer of smaller content until ctx ends.
func (pr *peer) dial(ctx context.Context) {
	p := pr.p
	backoff := p.times().MinBackoff
	for attempts := 1; ; attempts++ {
		d, known := p.dialect()
		if !known {
			pr.failed("waiting to learn the header dialect of the cluster, from the first backend or peer that says hello, or --dialect")
			select {
			case <-ctx.Done():
				return
			case <-pr.kick:
				continue
			}
		}
		lasted, err := pr.dialOnce(ctx, d)
		if ctx.Err() != nil {
			return
		}
		if lasted > p.times().MaxBackoff {
			backoff = p.times().MinBackoff
		}
		pause, kind, level := backoff, fmt.Sprintf("dial %d", pr.entry.Dbid), slog.LevelWarn
		if p.served(pr) {
			// Another instance has its content: a standby or mirror, where
			// nothing listens until it is activated.
			pause, level = p.times().MirrorBackoff, slog.LevelDebug
		} else if attempts <= quietAttempts && len(p.sameContent(pr)) > 0 {
			level = slog.LevelDebug // the other will be there in a moment
		}
		if lasted > 0 {
			attempts = 0
			p.log.forget(kind)
			p.log.Warn("lost a peer", "peer", pr.label, "address", pr.entry.Addr(), "error", whyEnded(err))
		} else {
			if level == slog.LevelDebug {
				kind += " quietly"
			}
			p.log.limited(kind, level, "cannot reach a peer", "peer", pr.label, "address", pr.entry.Addr(), "error", reason(err))
		}
		backoff = min(2*backoff, p.times().MaxBackoff)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-pr.kick:
			timer.Stop()
			// Whoever is in a hurry is not served by a loop without a pause.
			if pause > backoff {
				backoff = p.times().MinBackoff
			}
			if !sleep(ctx, p.times().MinBackoff) {
				return
			}
		case <-timer.C:
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// dialOnce connects and serves the connection until it ends. lasted is 0 when
// it never came to be.
func (pr *peer) dialOnce(ctx context.Context, d icwire.Dialect) (lasted time.Duration, err error) {
	p := pr.p
	pr.setDialling(true)
	conn, err := pr.connect(ctx)
	var a trunk.Agreement
	if err == nil {
		if a, err = pr.shake(ctx, conn, d); err != nil {
			conn.Close()
		}
	}
	pr.setDialling(false)
	if err != nil {
		pr.failed(reason(err))
		return 0, err
	}
	t := p.newTrunk(conn, d, a)
	p.watch(conn)
	if !pr.attach(t, a, conn.RemoteAddr().String()) {
		t.Close()
		conn.Close()
		return 0, errors.New("no longer wanted")
	}
	began := time.Now()
	p.log.Info("connected to a peer", "peer", pr.label, "address", pr.entry.Addr(), "trunkline", a.Trunkline)
	err = t.Run(&session{pr: pr, t: t})
	pr.detach(t, whyEnded(err))
	p.hurryOthers(pr)
	return max(time.Since(began), 1), err
}

// connect resolves the peer's name, always anew, and connects to the first of
// its addresses that answers.
func (pr *peer) connect(ctx context.Context) (net.Conn, error) {
	p := pr.p
	limit := p.times().DialTimeout
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	pr.stage("resolving the name %s", pr.entry.Host)
	addrs, err := p.lookup(ctx, pr.entry.Host)
	if err != nil {
		return nil, err
	}
	var first error
	for i, a := range addrs {
		addr := netip.AddrPortFrom(a, uint16(pr.entry.Port)).String()
		pr.stage("connecting to %s", addr)
		// An address that does not answer leaves time for those behind it.
		left, _ := ctx.Deadline()
		tctx, cancel := context.WithTimeout(ctx, time.Until(left)/time.Duration(len(addrs)-i))
		conn, err := new(net.Dialer).DialContext(tctx, "tcp", addr)
		cancel()
		// A port of the ephemeral range where nobody listens can be its own
		// source port: then the connection is with ourselves.
		if err == nil && conn.LocalAddr().String() == conn.RemoteAddr().String() {
			conn.Close()
			err = syscall.ECONNREFUSED
		}
		if err == nil {
			return conn, nil
		}
		if first == nil {
			why := reason(err)
			if isTimeout(err) {
				why = fmt.Sprintf("no answer to our attempt to connect within %v", limit)
			}
			if a.String() != pr.entry.Host {
				why = a.String() + ": " + why
			}
			first = &dialError{why, err}
		}
	}
	return nil, first
}

// dialError says in words what err is.
type dialError struct {
	text string
	err  error
}

func (e *dialError) Error() string { return e.text }
func (e *dialError) Unwrap() error { return e.err }

// shake is the dialler's side of the handshake.
func (pr *peer) shake(ctx context.Context, conn net.Conn, d icwire.Dialect) (a trunk.Agreement, err error) {
	p := pr.p
	limit := p.times().HelloTimeout
	pr.stage("waiting for the answer to our hello")
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return a, err
	}
	hello := trunk.Offer(icwire.Header{
		Type: icwire.PeerHello, SrcContent: p.content, SrcDbid: p.dbid, SrcPid: int32(os.Getpid()),
		DstContent: pr.entry.Content, DstDbid: pr.entry.Dbid,
	})
	hello.SendSlice = int16(p.ownPort()) // see refuseWord
	if _, err := conn.Write(hello.Append(nil, d)); err != nil {
		return a, err
	}
	buf := make([]byte, d.HeaderLen())
	n, err := io.ReadFull(conn, buf)
	switch {
	case err != nil && isTimeout(err):
		return a, fmt.Errorf("it took the connection but did not answer our hello within %v", limit)
	case err == io.EOF, errors.Is(err, syscall.ECONNRESET):
		return a, errors.New("the proxy there closed the connection instead of answering our hello")
	case err == io.ErrUnexpectedEOF:
		return a, fmt.Errorf("what answers there is no proxy of this cluster: it sent %q and closed the connection", buf[:n])
	case err != nil:
		return a, err
	}
	if a, err = pr.checkAck(buf, d); err != nil {
		return a, err
	}
	return a, conn.SetDeadline(time.Time{})
}

// stage takes note of how far dialling has come.
func (pr *peer) stage(format string, args ...any) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.doing = fmt.Sprintf(format, args...)
}

func (pr *peer) setDialling(on bool) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.dialling = on
}

// served says whether another instance of the peer's content is connected.
func (p *Proxy) served(pr *peer) bool {
	for _, o := range p.sameContent(pr) {
		if o.connected() {
			return true
		}
	}
	return false
}

// hurryOthers lets those be dialled at once that may have taken over pr's
// content.
func (p *Proxy) hurryOthers(pr *peer) {
	for _, o := range p.sameContent(pr) {
		o.hurry()
	}
}

func (p *Proxy) sameContent(pr *peer) []*peer {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var l []*peer
	for _, o := range p.peers {
		if o != pr && o.entry.Content == pr.entry.Content {
			l = append(l, o)
		}
	}
	return l
}
