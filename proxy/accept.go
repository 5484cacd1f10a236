package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/trunk"
	"github.com/trunkline-db/trunkline/topology"
)

// acceptPeers serves a listener until it is closed.
func (p *Proxy) acceptPeers(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !p.acceptFailed(ctx, l.Addr().String(), err) {
				return
			}
			continue
		}
		st := p.callers.add(conn)
		p.wg.Go(func() {
			defer conn.Close()
			pr, t, err := p.greet(ctx, conn, st)
			if err != nil {
				if ctx.Err() != nil {
					return
				}
				if kind, why, ok := p.reject(err, p.times().HelloTimeout); ok {
					p.log.limited("refused "+rejectionNames[kind], slog.LevelWarn, "refused a connection", "from", conn.RemoteAddr().String(), "reason", why)
				}
				return
			}
			p.log.Info("a peer has connected", "peer", pr.label, "from", conn.RemoteAddr().String())
			err = t.Run(&session{pr: pr, t: t})
			pr.detach(t, whyEnded(err))
			if ctx.Err() == nil {
				p.log.Warn("lost a peer", "peer", pr.label, "error", whyEnded(err))
			}
		})
	}
}

// acceptFailed is called when a listener cannot accept: out of descriptors,
// most likely, so those who have said nothing are closed. It is false when the
// proxy ends.
func (p *Proxy) acceptFailed(ctx context.Context, listener string, err error) bool {
	p.log.limited("accept", slog.LevelError, "cannot accept a connection", "listener", listener, "error", reason(err))
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		p.callers.makeRoom()
		p.locals.makeRoom()
		p.ended.Flush()
	}
	return sleep(ctx, 50*time.Millisecond)
}

// greet is the acceptor's side of the handshake.
func (p *Proxy) greet(ctx context.Context, conn net.Conn, st *stranger) (*peer, *trunk.Trunk, error) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	err := conn.SetDeadline(time.Now().Add(p.times().HelloTimeout))
	var h icwire.Header
	var d icwire.Dialect
	if err == nil {
		h, d, err = readHello(conn, icwire.PeerHello)
	}
	if p.callers.remove(st) {
		err = errCrowded
	}
	if err != nil {
		return nil, nil, noHello(err)
	}
	pr, err := p.admit(ctx, h, d, conn.RemoteAddr())
	if err != nil {
		var r *refusal
		if errors.As(err, &r) {
			_, _ = conn.Write(p.refuse(h, d, r.code)) // whether he hears it is his affair
		}
		return nil, nil, err
	}
	ack, a := trunk.Accept(h, h.PeerHelloAck(int32(os.Getpid())))
	if _, err := conn.Write(ack.Append(nil, d)); err != nil {
		return nil, nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	t := p.newTrunk(conn, d, a)
	p.watch(conn)
	if !pr.attach(t, a, conn.RemoteAddr().String()) {
		return nil, nil, refusef(rejUnlisted, 0, "%s has just been taken out of the address list", pr.label)
	}
	return pr, t, nil
}

// admit says whose hello it is, or why he is not wanted: a *refusal.
func (p *Proxy) admit(ctx context.Context, h icwire.Header, d icwire.Dialect, addr net.Addr) (*peer, error) {
	p.mu.RLock()
	pr := p.peers[h.SrcDbid]
	p.mu.RUnlock()
	from := instanceName(h.SrcContent, h.SrcDbid)
	switch {
	case h.DstDbid != p.dbid || h.DstContent != p.content:
		return nil, refusef(rejUnlisted, refuseDest, "%s looks for the proxy of %s here, but this is that of %s", from, instanceName(h.DstContent, h.DstDbid), p.label)
	case pr == nil:
		return nil, refusef(rejUnlisted, refuseUnlisted, "%s is not in the address list", from)
	case pr.entry.Content != h.SrcContent:
		return nil, refusef(rejUnlisted, refuseContent, "dbid %d says its content is %d, the address list says %d", h.SrcDbid, h.SrcContent, pr.entry.Content)
	case pr.role != DialsUs:
		return nil, refusef(rejUnlisted, refuseRole, "%s dials us, but of two instances the one with the greater content dials", from)
	}
	err := p.comesFrom(ctx, pr.entry, addr)
	if err == nil {
		err = p.listensWhere(pr.entry, h)
	}
	if err == nil {
		if derr := p.learn(d, false); derr != nil {
			err = refusef(rejUnlisted, refuseDialect, "%s: %w", from, derr)
		}
	}
	if err != nil {
		pr.failed(err.Error())
		return nil, err
	}
	return pr, nil
}

// listensWhere checks the port a Trunkline dialler says it listens on.
func (p *Proxy) listensWhere(e topology.Entry, hello icwire.Header) error {
	_, a := trunk.Accept(hello, icwire.Header{})
	port := int(uint16(hello.SendSlice))
	if !a.Trunkline || port == 0 || port == e.Port || p.anySource.Load() {
		return nil
	}
	return refusef(rejAddress, refusePort, "%s says it listens on port %d, the address list says %d: it is of another cluster, or the lists differ (%s = off accepts it)",
		instanceName(e.Content, e.Dbid), port, e.Port, guc.ProxyCheckSource)
}

// readHello reads the first packet of a connection, which tells the dialect.
func readHello(r io.Reader, want icwire.Type) (h icwire.Header, d icwire.Dialect, err error) {
	h, d, err = readHead(r)
	if err == nil && (h.Type != want || int(h.Len) != d.HeaderLen()) {
		err = unexpected(want, h)
	}
	return h, d, err
}

func unexpected(want icwire.Type, h icwire.Header) error {
	return &icwire.ProtocolError{Reason: fmt.Sprintf("expected %v, received %v", want, h)}
}

// readHead reads a packet's header.
func readHead(r io.Reader) (h icwire.Header, d icwire.Dialect, err error) {
	var buf [icwire.MaxHeaderLen]byte
	if _, err = io.ReadFull(r, buf[:4]); err != nil {
		return h, d, err
	}
	if d, err = icwire.DetectDialect(buf[:4]); err != nil {
		return h, d, err
	}
	b := buf[:d.HeaderLen()]
	if _, err = io.ReadFull(r, b[4:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return h, d, err
	}
	h, err = icwire.Decode(b, d)
	return h, d, err
}

// learn takes note of the dialect somebody speaks. One cluster speaks one
// dialect: what a backend of our own instance speaks is it, what a peer speaks
// has to fit.
func (p *Proxy) learn(d icwire.Dialect, backend bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w, fixed := p.cfg.Dialect.wire(); fixed {
		if w != d {
			return fmt.Errorf("it speaks the dialect %v, this cluster is set to %v", d, w)
		}
		return nil
	}
	if p.learned && p.spoken != d && !backend {
		return fmt.Errorf("it speaks the dialect %v, the others of this cluster %v", d, p.spoken)
	}
	if p.learned && p.spoken == d {
		return nil
	}
	p.learned, p.spoken = true, d
	p.log.Info("the cluster's header dialect is known", "dialect", d.String())
	for _, pr := range p.peers {
		pr.hurry()
	}
	return nil
}

// dialect is what the cluster speaks, once it is known.
func (p *Proxy) dialect() (icwire.Dialect, bool) {
	if d, fixed := p.cfg.Dialect.wire(); fixed {
		return d, true
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.spoken, p.learned
}
