package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/trunk"
)

// maxStrangers is how many accepted connections may be waited for to say who
// they are. One more, and the one that has been silent longest is closed.
const maxStrangers = 1024

// strangers are the connections that have not said who they are.
type strangers struct {
	mu    sync.Mutex
	order []net.Conn
}

func (s *strangers) add(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) >= maxStrangers {
		s.order[0].Close()
		s.order = s.order[1:]
	}
	s.order = append(s.order, c)
}

func (s *strangers) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.order {
		if o == c {
			s.order = append(s.order[:i], s.order[i+1:]...)
			return
		}
	}
}

// acceptPeers serves a listener until it is closed.
func (p *Proxy) acceptPeers(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: others will be closed.
			p.log.limited("accept", slog.LevelError, "cannot accept a connection", "listener", l.Addr().String(), "error", reason(err))
			if !sleep(ctx, 50*time.Millisecond) {
				return
			}
			continue
		}
		p.wg.Go(func() {
			defer conn.Close()
			p.strangers.add(conn)
			pr, t, err := p.greet(ctx, conn)
			p.strangers.remove(conn)
			if err != nil {
				if ctx.Err() == nil && err != io.EOF { // a port probe closes without a word
					p.rejected.Add(1)
					p.log.limited("peer refused", slog.LevelWarn, "refused a connection", "from", conn.RemoteAddr().String(), "reason", reason(err))
				}
				return
			}
			p.log.Info("a peer has connected", "peer", pr.label, "from", conn.RemoteAddr().String())
			err = t.Run(session{pr, t})
			pr.detach(t, whyEnded(err))
			if ctx.Err() == nil {
				p.log.Warn("lost a peer", "peer", pr.label, "error", whyEnded(err))
			}
		})
	}
}

// greet is the acceptor's side of the handshake.
func (p *Proxy) greet(ctx context.Context, conn net.Conn) (*peer, *trunk.Trunk, error) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(p.cfg.HelloTimeout)); err != nil {
		return nil, nil, err
	}
	h, d, err := readHello(conn, icwire.PeerHello)
	if err != nil {
		return nil, nil, err
	}
	pr, err := p.admit(h, d)
	if err != nil {
		return nil, nil, err
	}
	ack, a := trunk.Accept(h, h.PeerHelloAck(int32(os.Getpid())))
	if _, err := conn.Write(ack.Append(nil, d)); err != nil {
		return nil, nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	t := trunk.New(conn, d, p.maxPacket(d))
	if !pr.attach(t, a, conn.RemoteAddr().String()) {
		return nil, nil, fmt.Errorf("%s has just been taken out of the address list", pr.label)
	}
	return pr, t, nil
}

// admit says whose hello it is, or why he is not wanted.
func (p *Proxy) admit(h icwire.Header, d icwire.Dialect) (*peer, error) {
	p.mu.RLock()
	pr := p.peers[h.SrcDbid]
	p.mu.RUnlock()
	from := instanceName(h.SrcContent, h.SrcDbid)
	switch {
	case h.DstDbid != p.dbid || h.DstContent != p.content:
		return nil, fmt.Errorf("%s looks for the proxy of %s here, but this is that of %s", from, instanceName(h.DstContent, h.DstDbid), p.label)
	case pr == nil:
		return nil, fmt.Errorf("%s is not in the address list", from)
	case pr.entry.Content != h.SrcContent:
		return nil, fmt.Errorf("dbid %d says its content is %d, the address list says %d", h.SrcDbid, h.SrcContent, pr.entry.Content)
	case pr.role != DialsUs:
		return nil, fmt.Errorf("%s dials us, but of two instances the one with the greater content dials", from)
	}
	if err := p.learn(d, false); err != nil {
		pr.failed(err.Error())
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return pr, nil
}

// readHello reads the first packet of a connection, which tells the dialect.
func readHello(r io.Reader, want icwire.Type) (h icwire.Header, d icwire.Dialect, err error) {
	var buf [icwire.MaxHeaderLen]byte
	if _, err = io.ReadFull(r, buf[:4]); err != nil {
		return h, d, err
	}
	if d, err = icwire.DetectDialect(buf[:4]); err != nil {
		return h, d, err
	}
	b := buf[:d.HeaderLen()]
	if _, err = io.ReadFull(r, b[4:]); err != nil {
		return h, d, io.ErrUnexpectedEOF
	}
	if h, err = icwire.Decode(b, d); err != nil {
		return h, d, err
	}
	if h.Type != want || int(h.Len) != len(b) {
		return h, d, &icwire.ProtocolError{Reason: fmt.Sprintf("expected %v, received %v", want, h)}
	}
	return h, d, nil
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
