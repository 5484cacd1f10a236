package instance

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/internal/freeport"
)

// openGate binds a gate to a free port.
func openGate(t *testing.T, hosts ...string) (*gate, int) {
	t.Helper()
	port, err := freeport.One()
	if err != nil {
		t.Fatal(err)
	}
	g, err := listenGate(t.Context(), hosts, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = g.Close()
		g.wait()
	})
	return g, port
}

// Until it is open a gate answers as a PostgreSQL server that starts.
func TestGateBeforeOpen(t *testing.T) {
	g, _ := openGate(t, "127.0.0.1")
	for _, ssl := range []string{"disable", "prefer"} {
		host, port, _ := net.SplitHostPort(g.Addr().String())
		_, err := pgconn.Connect(t.Context(), "host="+host+" port="+port+" user=x dbname=x sslmode="+ssl)
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "57P03" || !strings.Contains(pe.Message, "starting up") {
			t.Errorf("sslmode=%s: %v, want 57P03", ssl, err)
		}
	}
}

func TestGateAccept(t *testing.T) {
	g, _ := openGate(t, "127.0.0.1", "localhost", "127.0.0.2")
	g.open()
	if len(g.listeners) < 2 {
		t.Fatalf("%d listeners, want one for each address", len(g.listeners))
	}
	for _, ln := range g.listeners {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := g.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if s.LocalAddr().String() != ln.Addr().String() {
			t.Errorf("accepted on %v, dialled %v", s.LocalAddr(), ln.Addr())
		}
		_, _ = c.Close(), s.Close()
	}
	_ = g.Close()
	if _, err := g.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed gate: %v, want net.ErrClosed", err)
	}
}

// A connection nobody accepted is closed with the gate.
func TestGateClosePending(t *testing.T) {
	g, _ := openGate(t, "127.0.0.1")
	g.open()
	c, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	time.Sleep(10 * time.Millisecond)
	_ = g.Close()
	g.wait()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read from a pending connection: %v, want its end", err)
	}
}

func TestGateTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	began := time.Now()
	_, err = listenGate(t.Context(), []string{"127.0.0.1"}, port)
	if err == nil || !strings.Contains(err.Error(), "taken by another process") {
		t.Errorf("taken port: %v", err)
	}
	if d := time.Since(began); d > bindPatience+5*time.Second {
		t.Errorf("it took %v to say so", d)
	}
	if _, err := listenGate(t.Context(), []string{"192.0.2.1"}, port); err == nil {
		t.Error("an address of another machine was bound")
	}
}

func TestResolveHosts(t *testing.T) {
	got, err := resolveHosts(t.Context(), []string{"127.0.0.1", " * ", "127.0.0.1"})
	if err != nil || len(got) != 1 || got[0] != "" {
		t.Errorf("a list with * = %q, %v, want all addresses", got, err)
	}
	got, err = resolveHosts(t.Context(), []string{"127.0.0.1", "::1", "127.0.0.1"})
	if err != nil || strings.Join(got, " ") != "127.0.0.1 ::1" {
		t.Errorf("duplicates: %q, %v", got, err)
	}
	if _, err := resolveHosts(t.Context(), []string{"no.such.host.invalid"}); err == nil {
		t.Error("an unknown name was resolved")
	}
}
