package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/proxy"
)

// proxyDir makes the part of a data directory a proxy reads.
func proxyDir(t *testing.T, dbid, content int, list string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pxy") // socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, text := range map[string]string{
		"internal.auto.conf": fmt.Sprintf("gp_dbid=%d\n", dbid),
		"postgresql.conf":    fmt.Sprintf("gp_contentid=%d\ngp_interconnect_proxy_addresses='%s'\n", content, list),
		"postmaster.pid":     fmt.Sprintf("%d\n%s\n1\n15432\n", os.Getpid()*10+dbid, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func proxyStatus(t *testing.T, dir string) (s proxy.Status, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), []string{"trunkline", "proxy", "status", "-D", dir, "--json"}, &out, &errs)
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &s); err != nil {
			t.Fatalf("%v: %s", err, &out)
		}
	}
	return s, code
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func TestProxyCommand(t *testing.T) {
	var ports [2]int
	for i := range ports {
		var err error
		if ports[i], err = freeport.One(); err != nil {
			t.Fatal(err)
		}
	}
	list := fmt.Sprintf("1:-1:127.0.0.1:%d,2:0:127.0.0.1:%d", ports[0], ports[1])
	dirs := []string{proxyDir(t, 1, -1, ""), proxyDir(t, 2, 0, list)}
	if _, code := proxyStatus(t, dirs[0]); code != 4 {
		t.Errorf("status without a proxy: exit %d", code)
	}
	ctx, cancel := context.WithCancel(t.Context())
	exits := make(chan int, len(dirs))
	var logs [2]bytes.Buffer
	for i, dir := range dirs {
		go func() {
			exits <- run(ctx, []string{"trunkline", "proxy", "-D", dir, "--dialect", "magic36"}, &bytes.Buffer{}, &logs[i])
		}()
	}
	waitFor(t, "both to run", func() bool {
		a, _ := proxyStatus(t, dirs[0])
		b, _ := proxyStatus(t, dirs[1])
		return a.Socket != "" && b.Socket != ""
	})
	if s, code := proxyStatus(t, dirs[0]); code != 3 || !strings.Contains(s.Problem, "gp_interconnect_proxy_addresses is not set") {
		t.Errorf("without addresses: exit %d, %q", code, s.Problem)
	}
	if err := os.WriteFile(filepath.Join(dirs[0], "postgresql.conf"), fmt.Appendf(nil, "gp_contentid=-1\ngp_interconnect_proxy_addresses='%s'\n", list), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the connection", func() bool { _, code := proxyStatus(t, dirs[0]); return code == 0 })

	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"trunkline", "proxy", "status", "-D", dirs[1]}, &out, &errs); code != 0 {
		t.Errorf("status: exit %d, %s", code, &errs)
	}
	for _, want := range []string{"Proxy of seg0 (dbid 2), process ", fmt.Sprintf("Listening on:     127.0.0.1:%d\n", ports[1]), "Header dialect:   magic36\n", "we dial  connected"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	cancel()
	for range dirs {
		select {
		case code := <-exits:
			if code != 0 {
				t.Errorf("exit %d\n%s\n%s", code, &logs[0], &logs[1])
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a proxy did not stop")
		}
	}
	if left, _ := filepath.Glob(fmt.Sprintf("/tmp/.s.PGSQL.ic_proxy.15432.%d*", os.Getpid())); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestProxyArguments(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"proxy", 2, "use -D DATADIR"},
		{"proxy status", 2, "use -D DATADIR"},
		{"proxy -D /none extra", 2, "unknown command"},
		{"proxy -D /none", 1, "no such file or directory"},
		{"proxy -D " + t.TempDir() + " --dialect x", 2, "use auto, magic36 or plain32"},
		{"proxy -D " + t.TempDir() + " -c trunkline.proxy_grace=never", 2, `invalid value for parameter "trunkline.proxy_grace"`},
		{"proxy -D " + t.TempDir() + " -c trunkline.proxy_graze=1", 2, `unrecognized configuration parameter "trunkline.proxy_graze"`},
		{"proxy -D " + t.TempDir() + " -c trunkline.proxy_grace", 2, "want name=value"},
		{"proxy -D " + t.TempDir() + " -c trunkline.proxy_addresses=1:2", 2, "2 of 4 fields"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"trunkline"}, strings.Fields(c.args)...), &out, &errs)
		if code != c.code || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%s: exit %d, want %d\n%s", c.args, code, c.code, &errs)
		}
	}
}

// The parameters of the command line go before the file's; the status tells
// what is in force, and who has been turned away.
func TestProxyParameters(t *testing.T) {
	dir := proxyDir(t, 1, -1, "")
	port, err := freeport.One()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "postgresql.conf")
	text := "gp_contentid=-1\ntrunkline.proxy_grace=7\ntrunkline.proxy_hello_timeout=9\ntrunkline.proxy_peer_timeout='soon'\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	exit := make(chan int, 1)
	var log bytes.Buffer
	go func() {
		exit <- run(ctx, []string{"trunkline", "proxy", "-D", dir, "-c", "trunkline.proxy_hello_timeout=150ms",
			"-c", fmt.Sprintf("trunkline.proxy_addresses=1:-1:127.0.0.1:%d", port)}, &bytes.Buffer{}, &log)
	}()
	waitFor(t, "the proxy", func() bool { s, _ := proxyStatus(t, dir); return s.Socket != "" && s.Listener.Bound })
	s, code := proxyStatus(t, dir)
	if want := conf + `, line 4: invalid value for parameter "trunkline.proxy_peer_timeout": "soon"`; s.ConfigError != want || code != 3 {
		t.Errorf("exit %d, %q, want %q", code, s.ConfigError, want)
	}
	if s.Limits.Grace != 7 || s.Limits.HelloTimeout != 0.15 || s.Limits.PeerTimeout != 30 {
		t.Errorf("%+v", s.Limits)
	}
	for _, said := range []string{"nonsense", ""} {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(said)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "both to be counted", func() bool { s, _ := proxyStatus(t, dir); return s.Rejected == 2 })
	var out, errs bytes.Buffer
	run(t.Context(), []string{"trunkline", "proxy", "status", "-D", dir}, &out, &errs)
	for _, want := range []string{"Strangers:        2 closed (1 garbage, 1 silent), 0 silent so far\n", "Server:           process ", "Configuration:    " + s.ConfigError + "\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	cancel()
	if code := <-exit; code != 0 {
		t.Errorf("exit %d\n%s", code, &log)
	}
}

func TestByteCount(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_999: "1.0 MB", 1 << 40: "1.1 TB"} {
		if got := byteCount(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
