package session

import (
	"crypto/elliptic"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/internal/testkit/certs"
	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
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

// TestLoadTLS: whoever starts with files that cannot be used does not, whoever
// reads them again keeps what was.
func TestLoadTLS(t *testing.T) {
	srv := pgtest.Start(t)
	dir := datadir.Dir(t.TempDir())
	if err := os.Symlink(srv.Dir, dir.SocketDir()); err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Dir: dir, Port: srv.Port, Role: Segment})
	if err := s.LoadTLS(); err != nil || s.tls.config(s) != nil {
		t.Fatalf("with ssl off: %v, %v", err, s.tls.config(s))
	}
	conn := srv.Connect(t)
	pgtest.Query(t, conn, "ALTER SYSTEM SET ssl = on") // its own files are not there, so it goes on without
	pgtest.Query(t, conn, "SELECT pg_reload_conf()")
	for start := time.Now(); string(pgtest.Query(t, srv.Connect(t), "SHOW ssl")[0][0]) != "on"; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("ssl stays off")
		}
	}
	refused := func(words string) {
		t.Helper()
		if err := s.LoadTLS(); err == nil || !strings.HasPrefix(err.Error(), "ssl is on, but connections cannot be encrypted: could not "+words) {
			t.Errorf("the server starts: %v; expected %s", err, words)
		}
	}
	missing := filepath.Join(string(dir), "server.crt")
	refused(`load server certificate file "` + missing + `": no such file or directory`)
	s.Reload()
	if s.tls.config(s) != nil {
		t.Error("there is something to encrypt with")
	}
	pair := certs.NewAuthority(t, "authority", elliptic.P256()).Issue(t, "server", "127.0.0.1")
	certs.Write(t, string(dir), "server.crt", pair.Cert)
	refused("access private key file")
	certs.Write(t, string(dir), "server.key", pair.Key)
	if err := s.LoadTLS(); err != nil {
		t.Fatal(err)
	}
	good := s.tls.config(s)
	if good == nil {
		t.Fatal("there is nothing to encrypt with")
	}
	certs.Write(t, string(dir), "server.crt", []byte("nonsense"))
	refused("load server certificate file")
	s.Reload()
	if s.tls.config(s) != good {
		t.Error("a file that cannot be used has changed what connections are encrypted with")
	}
}
