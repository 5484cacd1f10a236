package session

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
)

// TestEncryptionUnknown: clients of a server that does not say how to encrypt
// wait for one attempt to find out, not for each other's.
func TestEncryptionUnknown(t *testing.T) {
	const port, clients, silence = 5432, 20, 300 * time.Millisecond
	dir := datadir.Dir(t.TempDir())
	if err := os.MkdirAll(dir.SocketDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", filepath.Join(dir.SocketDir(), ".s.PGSQL."+strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	var attempts atomic.Int32
	var server, wg sync.WaitGroup
	server.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			attempts.Add(1)
			time.AfterFunc(silence, func() { conn.Close() })
		}
	})
	s := NewServer(Config{Dir: dir, Port: port, Role: Segment})
	start := time.Now()
	for range clients {
		wg.Go(func() {
			if cfg := s.tls.config(s); cfg != nil {
				t.Error("there is something to encrypt with")
			}
		})
	}
	wg.Wait()
	if n, d := attempts.Load(), time.Since(start); n == 0 || n > clients/2 || d > clients/2*silence {
		t.Errorf("%d clients made %d attempts and have waited %v", clients, n, d)
	}
	// Nobody keeps what was not found out.
	n := attempts.Load()
	s.tls.config(s)
	if attempts.Load() == n {
		t.Error("the next client does not try again")
	}
	ln.Close()
	server.Wait()
}
