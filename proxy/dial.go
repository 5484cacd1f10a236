package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
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
	backoff := p.cfg.MinBackoff
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
		if lasted > p.cfg.MaxBackoff {
			backoff = p.cfg.MinBackoff
		}
		pause, kind, level := backoff, fmt.Sprintf("dial %d", pr.entry.Dbid), slog.LevelWarn
		if p.served(pr) {
			// Another instance has its content: a standby or mirror, where
			// nothing listens until it is activated.
			pause, level = p.cfg.Rare, slog.LevelDebug
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
		backoff = min(2*backoff, p.cfg.MaxBackoff)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-pr.kick:
			timer.Stop()
			// Whoever is in a hurry is not served by a loop without a pause.
			if pause > backoff {
				backoff = p.cfg.MinBackoff
			}
			if !sleep(ctx, p.cfg.MinBackoff) {
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
	conn, err := p.connect(ctx, pr.entry.Addr())
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
	t := trunk.New(conn, d, p.maxPacket(d))
	if !pr.attach(t, a, conn.RemoteAddr().String()) {
		t.Close()
		conn.Close()
		return 0, errors.New("no longer wanted")
	}
	began := time.Now()
	p.log.Info("connected to a peer", "peer", pr.label, "address", pr.entry.Addr(), "trunkline", a.Trunkline)
	err = t.Run(session{pr, t})
	pr.detach(t, whyEnded(err))
	p.hurryOthers(pr)
	return max(time.Since(began), 1), err
}

func (p *Proxy) connect(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	// A port of the ephemeral range where nobody listens can be its own
	// source port: then the connection is with ourselves.
	if conn.LocalAddr().String() == conn.RemoteAddr().String() {
		conn.Close()
		return nil, errors.New("nobody listens there")
	}
	return conn, nil
}

// shake is the dialler's side of the handshake.
func (pr *peer) shake(ctx context.Context, conn net.Conn, d icwire.Dialect) (a trunk.Agreement, err error) {
	p := pr.p
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(p.cfg.HelloTimeout)); err != nil {
		return a, err
	}
	hello := trunk.Offer(icwire.Header{
		Type: icwire.PeerHello, SrcContent: p.content, SrcDbid: p.dbid, SrcPid: int32(os.Getpid()),
		DstContent: pr.entry.Content, DstDbid: pr.entry.Dbid,
	})
	if _, err := conn.Write(hello.Append(nil, d)); err != nil {
		return a, err
	}
	buf := make([]byte, d.HeaderLen())
	if _, err := io.ReadFull(conn, buf); err != nil {
		if err == io.EOF {
			return a, errors.New("the proxy there closed the connection instead of answering our hello")
		}
		return a, err
	}
	ack, err := icwire.Decode(buf, d)
	switch {
	case err != nil:
		return a, fmt.Errorf("what answers there is no proxy of this cluster: %w", err)
	case ack.Type != icwire.PeerHelloAck || int(ack.Len) != len(buf):
		return a, fmt.Errorf("what answers there is no proxy of this cluster: it sent %v", ack)
	case ack.DstDbid != pr.entry.Dbid || ack.DstContent != pr.entry.Content:
		return a, fmt.Errorf("the proxy there is that of %s", instanceName(ack.DstContent, ack.DstDbid))
	case ack.SrcDbid != p.dbid:
		return a, fmt.Errorf("the proxy there answers dbid %d, not us", ack.SrcDbid)
	}
	return trunk.Agreed(ack), conn.SetDeadline(time.Time{})
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
