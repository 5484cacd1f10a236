package proxied_test

import (
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// fakeProxy is a proxy that does what a script says.
type fakeProxy struct {
	ln net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex
	script []string // by connection; those without one have an empty one
	heard  []string
}

// startFakeProxy has each connection served as the script says, and then closed.
func startFakeProxy(t *testing.T, serve func(t *testing.T, p *fakeProxy, c net.Conn, what string), script ...string) *fakeProxy {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "ic_proxy"))
	if err != nil {
		t.Fatal(err)
	}
	p := &fakeProxy{ln: ln, script: script}
	p.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			var what string
			if len(p.script) > 0 {
				what, p.script = p.script[0], p.script[1:]
			}
			p.mu.Unlock()
			p.wg.Go(func() {
				defer c.Close()
				serve(t, p, c, what)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.wg.Wait()
	})
	return p
}

func (p *fakeProxy) socket() (string, error) { return p.ln.Addr().String(), nil }

func (p *fakeProxy) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, what)
}
