package tcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/internal/stream"
)

// listen opens the listener unless it is open, and returns its port.
func (ic *Interconnect) listen() (port int, err error) {
	ic.mu.Lock()
	defer ic.mu.Unlock()
	if ic.closed {
		return 0, errClosed
	}
	if ic.ln != nil {
		return ic.port, nil
	}
	ln, err := listenTCP(ic.cfg.ListenHost, ic.tuning.Load().Backlog)
	if err != nil {
		return 0, &motion.Error{
			Code:    motion.CodeInterconnect,
			Message: "interconnect Error: Could not set up tcp listener socket",
			Detail:  err.Error(),
			Err:     err,
		}
	}
	ic.ln, ic.port = ln, ln.Addr().(*net.TCPAddr).Port
	ic.wg.Add(1)
	go ic.accept(ln)
	return ic.port, nil
}

func listenTCP(host string, backlog int) (*net.TCPListener, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	ln := l.(*net.TCPListener)
	if err := setBacklog(ln, backlog); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// setBacklog calls listen again, which on Linux changes the backlog of a
// socket that listens already. Go's net always asks for the system's maximum.
func setBacklog(ln *net.TCPListener, n int) error {
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var lerr error
	if err := raw.Control(func(fd uintptr) { lerr = unix.Listen(int(fd), n) }); err != nil {
		return err
	}
	if lerr != nil {
		return fmt.Errorf("listen with backlog %d: %w", n, lerr)
	}
	return nil
}

func (ic *Interconnect) accept(ln net.Listener) {
	defer ic.wg.Done()
	slots := make(chan struct{}, maxRegistering)
	var said time.Time
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if time.Since(said) > acceptQuiet {
				ic.logf("interconnect error on listener port %d: %v", ln.Addr().(*net.TCPAddr).Port, bare(err))
				said = time.Now()
			}
			select {
			case <-time.After(acceptRetry):
			case <-ic.ctx.Done():
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ic.ctx.Done():
			stream.Reset(conn)
			return
		}
		ic.wg.Go(func() {
			ic.register(conn)
			<-slots
		})
	}
}

// register reads who has connected. Whoever does not say so is no sender.
func (ic *Interconnect) register(conn net.Conn) {
	stop := context.AfterFunc(ic.ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // closed already
	defer stop()
	conn.SetReadDeadline(time.Now().Add(registerLimit)) //nolint:errcheck // then reading fails
	if ic.ctx.Err() != nil {
		stream.Reset(conn)
		return
	}
	reg, err := readRegistration(conn)
	if err != nil || !stop() {
		var wrong *icwire.ProtocolError
		var ne net.Error
		if ic.ctx.Err() == nil && (errors.As(err, &wrong) || errors.As(err, &ne) && ne.Timeout()) { // else a sender was cancelled
			ic.logf("interconnect error reading register message from %s: %v", conn.RemoteAddr(), bare(err))
		}
		stream.Reset(conn)
		return
	}
	conn.SetReadDeadline(time.Time{}) //nolint:errcheck // then reading fails later
	ic.registry.arrive(registered(reg), conn)
}

// readRegistration reads the message and not a byte more. A wrong length is
// noticed before the rest has come.
func readRegistration(r io.Reader) (icwire.Registration, error) {
	var b [icwire.RegistrationLen]byte
	if _, err := io.ReadFull(r, b[:4]); err != nil {
		return icwire.Registration{}, err
	}
	if _, err := icwire.DecodeRegistration(b[:4]); !errors.Is(err, icwire.ErrShort) {
		return icwire.Registration{}, err
	}
	if _, err := io.ReadFull(r, b[4:]); err != nil {
		return icwire.Registration{}, err
	}
	return icwire.DecodeRegistration(b[:])
}
