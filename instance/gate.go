package instance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// bindPatience is how long a taken port is tried again: its last owner may
	// be on its way out.
	bindPatience = 2 * time.Second
	// refuseTimeout bounds the handshake with a client that comes too early.
	refuseTimeout = 5 * time.Second
	// maxRefusals bounds how many of those are served at a time.
	maxRefusals = 64
)

// gate owns the listening sockets of the instance's port. It is one
// net.Listener over all of them. Until open is called it tells clients that
// the database system is starting up, so that nobody waits without a word.
type gate struct {
	listeners []net.Listener
	conns     chan net.Conn
	closed    chan struct{}
	once      sync.Once
	wg        sync.WaitGroup
	refusals  chan struct{}

	mu     sync.Mutex
	opened bool
}

// listenGate binds port on every host of the list (PostgreSQL's
// listen_addresses: names, addresses, or * for all).
func listenGate(ctx context.Context, hosts []string, port int) (*gate, error) {
	addrs, err := resolveHosts(ctx, hosts)
	if err != nil {
		return nil, err
	}
	g := &gate{
		conns: make(chan net.Conn), closed: make(chan struct{}),
		refusals: make(chan struct{}, maxRefusals),
	}
	deadline := time.Now().Add(bindPatience)
	var failed error
	for _, host := range addrs {
		ln, err := bind(ctx, host, port, deadline)
		switch {
		case err == nil:
			g.listeners = append(g.listeners, ln)
		case errors.Is(err, syscall.EADDRINUSE):
			_ = g.Close()
			return nil, bindError(host, port, err)
		case failed == nil:
			failed = bindError(host, port, err)
		}
	}
	// As in PostgreSQL, one good address is enough: localhost names ::1 on
	// hosts without IPv6 too.
	if len(g.listeners) == 0 {
		return nil, failed
	}
	for _, ln := range g.listeners {
		g.wg.Go(func() { g.accept(ln) })
	}
	return g, nil
}

func bind(ctx context.Context, host string, port int, deadline time.Time) (net.Listener, error) {
	for {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) ||
			time.Now().After(deadline) || ctx.Err() != nil {
			return ln, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func bindError(host string, port int, err error) error {
	if host == "" {
		host = "*"
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d of %s is taken by another process: end that process, or give the cluster other ports", port, host)
	}
	return fmt.Errorf("cannot listen on port %d of %s: %w", port, host, err)
}

// resolveHosts turns the list into addresses to bind, without duplicates. ""
// stands for all.
func resolveHosts(ctx context.Context, hosts []string) ([]string, error) {
	seen := map[string]bool{}
	var addrs []string
	for _, h := range hosts {
		h = strings.TrimSpace(h)
		if h == "*" || h == "::" || h == "0.0.0.0" {
			if h == "*" {
				h = ""
			}
			return []string{h}, nil
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		ips, err := net.DefaultResolver.LookupHost(ctx, h)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("cannot resolve the address %q to listen on: %w", h, err)
		}
		for _, ip := range ips {
			if !seen[ip] {
				seen[ip] = true
				addrs = append(addrs, ip)
			}
		}
	}
	return addrs, nil
}

// open lets connections through to Accept from now on.
func (g *gate) open() {
	g.mu.Lock()
	g.opened = true
	g.mu.Unlock()
}

func (g *gate) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			select {
			case <-g.closed:
				return
			case <-time.After(10 * time.Millisecond): // out of descriptors, most likely
				continue
			}
		}
		g.mu.Lock()
		opened := g.opened
		g.mu.Unlock()
		if !opened {
			select {
			case g.refusals <- struct{}{}:
				g.wg.Go(func() {
					refuse(c)
					<-g.refusals
				})
			default:
				_ = c.Close()
			}
			continue
		}
		select {
		case g.conns <- c:
		case <-g.closed:
			_ = c.Close()
			return
		}
	}
}

// refuse tells a client that it came too early.
func refuse(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(refuseTimeout))
	be := pgproto3.NewBackend(c, c)
	for range 3 { // encryption requests may come first
		msg, err := be.ReceiveStartupMessage()
		if err != nil {
			return
		}
		switch msg.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			if _, err := c.Write([]byte("N")); err != nil {
				return
			}
		case *pgproto3.StartupMessage:
			be.Send(&pgproto3.ErrorResponse{
				Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P03",
				Message: "the database system is starting up",
			})
			_ = be.Flush()
			return
		default:
			return
		}
	}
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case c := <-g.conns:
		return c, nil
	case <-g.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: g.Addr(), Err: net.ErrClosed}
	}
}

// Close implements net.Listener: it stops listening and ends Accept.
func (g *gate) Close() error {
	g.once.Do(func() {
		close(g.closed)
		for _, ln := range g.listeners {
			_ = ln.Close()
		}
	})
	return nil
}

// Addr implements net.Listener: the first address.
func (g *gate) Addr() net.Addr {
	if len(g.listeners) == 0 {
		return &net.TCPAddr{}
	}
	return g.listeners[0].Addr()
}

// wait returns when all goroutines of a closed gate have ended.
func (g *gate) wait() { g.wg.Wait() }
