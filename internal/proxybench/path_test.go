package proxybench

import (
	"context"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/proxy"
	"github.com/trunkline-db/trunkline/topology"
)

// brokenPath is a path of which a byte is changed on the way.
type brokenPath struct {
	directPath
	wg sync.WaitGroup
}

func (p *brokenPath) open(i int) (stream, error) {
	a, err := p.directPath.open(i)
	if err != nil {
		return a, err
	}
	b, err := p.directPath.open(i)
	if err != nil {
		a.close()
		return b, err
	}
	p.wg.Go(func() {
		defer a.to.close()
		defer b.from.close()
		buf := make([]byte, 10_000)
		for at := 0; ; {
			n, err := a.to.Read(buf)
			if err != nil {
				return
			}
			if at < 12_345 && 12_345 < at+n {
				buf[12_345-at]++
			}
			at += n
			if _, err := b.from.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	return stream{from: a.from, to: b.to}, nil
}

// What a measurement goes through must be what was sent.
func TestCorrupted(t *testing.T) {
	socks, stop := newSockets(t.Context())
	defer stop()
	p := &brokenPath{directPath: directPath{socks}}
	_, err := throughputRound(t.Context(), p, newPattern(1000), 2, 50*time.Millisecond)
	// Both streams are changed there; the run ends with the first that sees it.
	if err == nil || !regexp.MustCompile(`data corrupted: stream [01]: byte 12345, in packet 12 at 345`).MatchString(err.Error()) {
		t.Errorf("a changed byte: %v", err)
	}
	s := &setup{p: p, pat: newPattern(20_000), src: newPattern(20_000).source(0), buf: make([]byte, 20_000)}
	if err := s.once(); err == nil || !strings.Contains(err.Error(), "byte 12345") {
		t.Errorf("a changed byte of a new connection: %v", err)
	}
	p.wg.Wait()
	if len(socks.open) > 0 {
		t.Errorf("%d sockets left open", len(socks.open))
	}
}

// A run drives proxies it has not started, three of them, in the other dialect.
func TestGivenProxies(t *testing.T) {
	var ends []Endpoint
	var list topology.AddressList
	for i := range 3 {
		port, err := freeport.One()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, topology.Entry{Dbid: uint16(i + 1), Content: int16(i - 1), Host: "127.0.0.1", Port: port})
	}
	for _, e := range list {
		dir := t.TempDir()
		p, err := proxy.New(proxy.Config{
			Source: proxy.Source{
				Facts: func() (proxy.Facts, error) {
					return proxy.Facts{Dbid: e.Dbid, Content: e.Content, Addresses: list}, nil
				},
				Postmaster: func() (int, int, error) { return 15432, 1, nil },
			},
			SocketDir: dir, Dialect: proxy.DialectPlain32, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		ends = append(ends, Endpoint{e.Content, e.Dbid, filepath.Join(dir, filepath.Base(datadir.ICProxySocket(15432, 1)))})
		for until := time.Now().Add(patience); p.Status().Socket == ""; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("a proxy does not come up")
			}
		}
	}
	o := tiny("throughput")
	o.Proxies, o.Dialect, o.Streams = ends, icwire.Plain32, 3
	r := run(t, o)
	want(t, r, []string{PathProxies, PathPump, PathOther, PathDirect}, MBps, CPUPerGB)
	if r.Own {
		t.Error("the report says the proxies were started for it")
	}
	o.Dialect, o.Pump = icwire.Magic36, ""
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "instead of answering HELLO") {
		t.Errorf("the wrong dialect: %v", err)
	}
}
