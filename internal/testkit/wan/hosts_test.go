package wan

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestConfigCheck(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "Hosts is 0, must be between 2 and 16"},
		{Config{Hosts: 17}, "Hosts is 17"},
		{Config{Hosts: 2, MTU: 100}, "MTU is 100"},
		{Config{Hosts: 2, TCPBuffer: -1}, "TCPBuffer is -1"},
		{Config{Hosts: 2, Link: Link{Loss: 2}}, "Loss is 2"},
	} {
		if _, err := New(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got %v, want %q", tc.cfg, err, tc.want)
		}
	}
}

func TestUnknownCongestionControl(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	n, err := New(Config{Hosts: 2, CongestionControl: "turtle"})
	if err == nil {
		_ = n.Close()
	}
	if err == nil || !strings.Contains(err.Error(), `"turtle"`) || !strings.Contains(err.Error(), "reno") {
		t.Errorf("got %v, want it to name the choice and what is allowed", err)
	}
}

// TestCommandSeesItsHostOnly starts a command and asks what it sees.
func TestCommandSeesItsHostOnly(t *testing.T) {
	n := network(t, Config{Hosts: 2, MTU: 1400})
	for i := range n.Hosts() {
		cmd := helperCommand("interfaces")
		var out strings.Builder
		cmd.Stdout = &out
		if err := n.Host(i).Run(cmd); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("lo 65536 [127.0.0.1/8 ::1/128]\nwan0 1400 [%v/24]\n", n.Host(i).Addr())
		got := strings.ReplaceAll(out.String(), "[127.0.0.1/8]", "[127.0.0.1/8 ::1/128]") // a kernel without IPv6
		if got != want {
			t.Errorf("%s sees\n%s, want\n%s", n.Host(i).Name(), got, want)
		}
	}
}

func TestPair(t *testing.T) {
	n := network(t, Config{Hosts: 2, Link: Link{Delay: 5 * time.Millisecond}})
	const port = 5000 // the host's own: all ports are free
	server, client := n.Host(1), n.Host(0)
	var out strings.Builder
	p := Pair{
		ServerHost: server, ClientHost: client,
		Server: helperCommand("serve " + server.AddrPort(port)),
		Client: helperCommand("fetch " + server.AddrPort(port)),
		Ready:  func(ctx context.Context) error { return server.WaitListening(ctx, port) },
	}
	p.Client.Stdout = &out
	took, err := p.Run(deadline(t))
	if err != nil || out.String() != fmt.Sprintln("hello", client.Addr()) {
		t.Errorf("the client said %q: %v", &out, err)
	}
	if took < 20*time.Millisecond {
		t.Errorf("the client took %v for two round trips of 10 ms", took)
	}
	for _, tc := range []struct{ name, server, client, want string }{
		{"client fails", "serve " + server.AddrPort(port), "fetch 127.0.0.1:1", "connection refused"},
		{"server fails", "nonsense", "fetch " + server.AddrPort(port), "no such role: nonsense"},
	} {
		p.Server, p.Client = helperCommand(tc.server), helperCommand(tc.client)
		if _, err := p.Run(deadline(t)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
	p.Server, p.Client = helperCommand("serve "+server.AddrPort(port)), helperCommand("sleep-alone")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a client that does not end: %v", err)
	}
}

// TestDo checks that a socket belongs to its host and the thread does not.
func TestDo(t *testing.T) {
	n := network(t, Config{Hosts: 2})
	ctx := deadline(t)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, "here")
	})}
	ln, err := n.Host(1).Listen(ctx, "tcp4", n.Host(1).AddrPort(0))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(ln)
	}()
	defer func() { _ = srv.Close(); <-served }()
	transport := &http.Transport{DialContext: n.Host(0).Dial, DisableKeepAlives: true}
	for range 20 {
		resp, err := (&http.Client{Transport: transport}).Get("http://" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	dialer := net.Dialer{Timeout: 300 * time.Millisecond}
	if c, err := dialer.DialContext(ctx, "tcp4", ln.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the machine itself reaches an address inside")
	}
	if _, err := n.Host(0).Dial(ctx, "tcp4", "localhost:80"); err == nil || !strings.Contains(err.Error(), "numbers") {
		t.Errorf("a name to look up: %v", err)
	}
	wantErr := errors.New("own")
	if err := n.Host(0).Do(func() error { return wantErr }); !errors.Is(err, wantErr) {
		t.Errorf("Do returned %v", err)
	}
	exited := make(chan bool)
	go func() {
		defer close(exited)
		_ = n.Host(0).Do(func() error { runtime.Goexit(); return nil })
		exited <- true
	}()
	if <-exited {
		t.Error("Do returned although its function ended the goroutine")
	}
	allHome(t)
}

// allHome checks that each thread of this process is where the first one is.
func allHome(t *testing.T) {
	t.Helper()
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(tasks) == 0 {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if ns, err := os.Readlink(task); err == nil && ns != home {
			t.Errorf("%s is %s, not %s", task, ns, home)
		}
	}
}

func descriptors(t *testing.T) map[string]int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, fd := range list {
		link, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil {
			continue // the directory's own
		}
		kind, _, _ := strings.Cut(link, ":[")
		count[kind]++
	}
	return count
}

func deviceNames(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob("/sys/class/net/*")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// TestCloseLeavesNothing compares descriptors, devices and processes with
// those before, with commands and traffic under way.
func TestCloseLeavesNothing(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	fds, devices := descriptors(t), deviceNames(t)
	n, err := New(Config{Hosts: 16, Link: Link{Delay: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	if got := deviceNames(t); got != devices {
		t.Errorf("the machine's devices are %s, were %s", got, devices)
	}
	a, b := udp(t, n)
	for range 100 {
		send(t, a, b, make([]byte, 1000))
	}
	cmd := helperCommand("sleep")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Host(15).Start(cmd); err != nil {
		t.Fatal(err)
	}
	var pids [2]int
	if _, err := fmt.Fscan(bufio.NewReader(out), &pids[0], &pids[1]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	err = cmd.Wait()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		t.Errorf("the command ended with %v, expected SIGKILL", err)
	}
	if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pids[1])); !errors.Is(err, fs.ErrNotExist) &&
		!strings.Contains(string(state), ") Z ") && !strings.Contains(string(state), ") X ") {
		t.Errorf("the command's child still runs: %s", state)
	}
	_, _ = a.Close(), b.Close()
	if got := descriptors(t); fmt.Sprint(got) != fmt.Sprint(fds) {
		t.Errorf("open descriptors %v, were %v", got, fds)
	}
	if got := deviceNames(t); got != devices {
		t.Errorf("the machine's devices are %s, were %s", got, devices)
	}
	allHome(t)
}
