package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/topology"
)

func TestRestartBackoff(t *testing.T) {
	if d := restartBackoff(1); d != 0 {
		t.Errorf("first restart waits %v", d)
	}
	for n := 2; n < 100; n++ {
		if a, b := restartBackoff(n), restartBackoff(n+1); a <= 0 || b < a || b > 5*time.Second {
			t.Fatalf("restart %d waits %v, the next %v", n, a, b)
		}
	}
}

// Children must outlive the threads that the runtime drops.
func TestSpawnerThreads(t *testing.T) {
	s := newSpawner()
	defer s.close()
	c, err := s.start(exec.Command("/bin/sleep", "60"), syscall.SIGTERM)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 { // a goroutine that ends while locked takes its thread with it
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(done)
		}()
		<-done
	}
	select {
	case <-c.exited:
		t.Fatalf("the child died with a foreign thread: %s", c.reason())
	case <-time.After(100 * time.Millisecond):
	}
	if !alive(c.pid) {
		t.Error("a running child does not count as alive")
	}
	c.signal(syscall.SIGTERM)
	<-c.exited
	if alive(c.pid) {
		t.Error("a child that was waited for counts as alive")
	}
	if !strings.Contains(c.reason(), "terminated") {
		t.Errorf("the child ended by %q", c.reason())
	}
}

// parentVar makes this test binary a process that starts a child, prints its
// pid and waits to be killed.
const parentVar = "TRUNKLINE_TEST_PARENT"

func beParent() {
	c, err := newSpawner().start(exec.Command("/bin/sleep", "60"), syscall.SIGKILL)
	if err != nil {
		panic(err)
	}
	fmt.Println(c.pid)
	time.Sleep(time.Minute)
}

// Children die with the process, however that dies.
func TestSpawnerDeath(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), parentVar+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscan(out, &pid)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if !alive(pid) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	t.Error("the child outlived its killed parent")
}

// A process that nobody waits for is dead for our purposes.
func TestAliveZombie(t *testing.T) {
	cmd := exec.Command("/bin/true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	for range 1000 {
		if !alive(cmd.Process.Pid) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("a zombie counts as alive")
}

func TestProxyKeeper(t *testing.T) {
	dir := tempDir(t)
	stand := filepath.Join(filepath.Dir(string(dir)), "stand-in")
	if err := os.WriteFile(stand, []byte("#!/bin/sh\ntrap 'exit 0' TERM\ntrap 'echo reloaded' HUP\necho up \"$@\"\nwhile :; do sleep 0.02; done\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := newSpawner()
	defer s.close()
	var pid, starts atomic.Int64
	p := &proxyKeeper{
		dir: dir, binary: stand, env: os.Environ(), spawn: s, log: slog.New(slog.DiscardHandler),
		onState: func(n int, st State) {
			if st == Ready {
				pid.Store(int64(n))
				starts.Add(1)
			}
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		p.keep(ctx)
		close(ended)
	}()
	logHas := func(want string, n int) {
		t.Helper()
		for range 1000 {
			b, _ := os.ReadFile(filepath.Join(dir.LogDir(), "proxy.log"))
			if strings.Count(string(b), want) >= n {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("proxy.log does not have %q %d times", want, n)
	}
	logHas("up proxy -D "+string(dir), 1)
	p.reload()
	logHas("reloaded", 1)
	_ = syscall.Kill(int(pid.Load()), syscall.SIGKILL)
	logHas("up", 2)
	cancel()
	<-ended
	if alive(int(pid.Load())) {
		t.Error("the proxy outlived its keeper")
	}
	if starts.Load() != 2 {
		t.Errorf("%d starts, want 2", starts.Load())
	}
}

// What a killed instance left is ended, the stubborn too, and nobody else.
func TestKillLeftovers(t *testing.T) {
	dir, other := tempDir(t), tempDir(t)
	s := newSpawner()
	defer s.close()
	start := func(verb string, of string) *child {
		// To the shell the verb is the script's name, -D and the directory its
		// arguments.
		cmd := exec.Command("/bin/sh", verb, "-D", of)
		cmd.Dir = filepath.Dir(string(dir))
		if err := os.WriteFile(filepath.Join(cmd.Dir, verb), []byte("trap '' TERM QUIT INT; while :; do sleep 0.05; done\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		c, err := s.start(cmd, syscall.SIGKILL)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	proxy, inst, foreign := start("proxy", string(dir)), start("instance", string(dir)), start("proxy", string(other))
	defer foreign.signal(syscall.SIGKILL)
	time.Sleep(50 * time.Millisecond) // for the traps
	if err := killProxies(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	<-proxy.exited
	if !alive(inst.pid) {
		t.Error("killProxies killed an instance")
	}
	if err := KillLeftovers(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	<-inst.exited
	if !alive(foreign.pid) {
		t.Error("a process of another data directory was killed")
	}
	foreign.signal(syscall.SIGKILL)
	<-foreign.exited
}

func TestSuccessor(t *testing.T) {
	var all []topology.Instance
	for _, dbid := range []uint16{4, 1, 3, 2} { // any order
		all = append(all, topology.Instance{Dbid: dbid})
	}
	for _, tc := range []struct {
		dbid   uint16
		wanted string
		want   uint16 // 0: none
	}{
		{1, "1234", 2}, {2, "1234", 3}, {4, "1234", 1}, // around the end
		{1, "134", 3}, {3, "23", 2}, // stopped ones are passed over
		{2, "2", 0}, {2, "", 0},
	} {
		got, ok := successor(all, tc.dbid, func(i topology.Instance) bool {
			return strings.Contains(tc.wanted, strconv.Itoa(int(i.Dbid)))
		})
		if ok != (tc.want != 0) || got.Dbid != tc.want {
			t.Errorf("successor of %d among %s = %d, %v, want %d", tc.dbid, tc.wanted, got.Dbid, ok, tc.want)
		}
	}
}

func TestFindPostgres(t *testing.T) {
	fake := func(version string, programs ...string) string {
		dir := t.TempDir()
		for _, p := range programs {
			if err := os.WriteFile(filepath.Join(dir, p), []byte("#!/bin/sh\necho 'postgres (PostgreSQL) "+version+"'\n"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	all := serverPrograms
	old, good, client := fake("13.4", all...), fake("15.2 (Debian 15.2-1)", all...), fake("15.2", "psql", "postgres")
	if got, err := findPostgres([]string{"/nowhere", client, old, good}); got != good || err != nil {
		t.Errorf("findPostgres = %q, %v, want %q", got, err, good)
	}
	_, err := findPostgres([]string{client, old})
	if !errors.Is(err, ErrNoPostgres) {
		t.Fatalf("findPostgres without the right one: %v", err)
	}
	for _, want := range []string{"13.4", "apt-get install postgresql-15"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error %q does not name %q", err, want)
		}
	}
}

func TestEnviron(t *testing.T) {
	t.Setenv("PGOPTIONS", "-c gp_interconnect_type=proxy")
	t.Setenv(notifyVar, "3")
	t.Setenv("HOME", "/somewhere")
	t.Setenv("TL_KEPT", "a=b")
	env := Environ(0)
	for _, kv := range env {
		if strings.HasPrefix(kv, "PG") || strings.HasPrefix(kv, notifyVar) {
			t.Errorf("%s is passed on", kv)
		}
	}
	if lookup(env, "TL_KEPT") != "a=b" || lookup(env, "HOME") != "/root" || lookup(env, "PATH") == "" {
		t.Errorf("environment: %q", env)
	}
}

func TestRunRefusesRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can see it")
	}
	if err := Run(t.Context(), tempDir(t), Options{}); err == nil || !strings.Contains(err.Error(), "root") {
		t.Errorf("Run as root: %v", err)
	}
}
