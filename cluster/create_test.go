package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/topology"
)

func TestLayout(t *testing.T) {
	list := layout("/c", "mdw", Options{Segments: 3, Standby: true, Port: 6000, Address: "::1"})
	var got []string
	for _, i := range list {
		got = append(got, fmt.Sprintf("%d:%d:%c:%c:%c:%d:%s:%s:%s", i.Dbid, i.Content, i.Role, i.Mode, i.Status, i.Port, i.Hostname, i.Address, i.Datadir))
	}
	want := []string{
		"1:-1:p:n:u:6000:mdw:::1:/c/coordinator/gpseg-1", "2:0:p:n:u:6001:mdw:::1:/c/primary/gpseg0",
		"3:1:p:n:u:6002:mdw:::1:/c/primary/gpseg1", "4:2:p:n:u:6003:mdw:::1:/c/primary/gpseg2",
		"5:-1:m:s:u:6004:mdw:::1:/c/standby/gpseg-1",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("layout:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What cannot work is said before anything is made.
func TestCreateRefuses(t *testing.T) {
	needPostgres(t)
	base := tempDir(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().(*net.TCPAddr).Port
	full := filepath.Join(base, "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(full, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(base, "made")
	if err := os.Mkdir(made, 0o755); err != nil {
		t.Fatal(err)
	}
	rows := layout(made, "mdw", Options{Segments: 1, Port: 6000, Address: "127.0.0.1"})
	if err := topology.WriteFile(filepath.Join(made, "gp_segment_configuration"), rows); err != nil {
		t.Fatal(err)
	}
	absent := filepath.Join(base, "absent")
	port := freePorts(t, 2)
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"no directory", Options{}, "no directory"},
		{"segments", Options{Dir: absent, Segments: -1}, "1 to 64"},
		{"port range", Options{Dir: absent, Port: 65533, Segments: 3}, "65533 to 65536"},
		{"address syntax", Options{Dir: absent, Address: "a b"}, "not a host name"},
		{"address unknown", Options{Dir: absent, Address: "no.such.host.invalid", Port: port}, "--address"},
		{"address of others", Options{Dir: absent, Address: "192.0.2.7", Port: port}, "--address"},
		{"port in use", Options{Dir: absent, Port: taken, Segments: 1}, strconv.Itoa(taken)},
		{"second port in use", Options{Dir: absent, Port: taken - 1, Segments: 1}, strconv.Itoa(taken)},
		{"directory in use", Options{Dir: full, Port: port, Segments: 1}, "not empty"},
		{"cluster there", Options{Dir: made, Port: port, Segments: 1}, "cluster start"},
		{"file", Options{Dir: file, Port: port, Segments: 1}, "not a directory"},
		{"below a file", Options{Dir: filepath.Join(file, "x"), Port: port, Segments: 1}, "not a directory"},
		{"colon", Options{Dir: absent + ":x", Port: port, Segments: 1}, `':'`},
		{"too long", Options{Dir: filepath.Join(base, strings.Repeat("x", 70)), Port: port, Segments: 1}, "too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Create(t.Context(), tc.o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Create: %v, want an error with %q", err, tc.want)
			}
			entries, _ := os.ReadDir(base)
			if len(entries) != 2 {
				t.Errorf("something was made: %v", entries)
			}
		})
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

// A create that fails late, or is interrupted, takes everything back.
func TestCreateFails(t *testing.T) {
	needPostgres(t)
	base := tempDir(t)
	port := freePorts(t, 3)
	broken := errors.New("the bootstrap is broken")
	for _, tc := range []struct {
		name     string
		existing bool
		cancel   bool
		want     error
		o        Options
	}{
		{name: "bootstrap", want: broken},
		{name: "bootstrap in an existing directory", existing: true, want: broken},
		{name: "interrupted", cancel: true, want: context.Canceled},
		{name: "start", o: Options{Conf: []string{"no_such_parameter=1"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(base, "a", "b")
			if tc.existing {
				dir = filepath.Join(base, "there")
				if err := os.Mkdir(dir, 0o750); err != nil {
					t.Fatal(err)
				}
				defer os.Remove(dir)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := tc.o
			o.Dir, o.Segments, o.Standby, o.Port = dir, 1, true, port
			o.Bootstrap = func(ctx context.Context, i topology.Instance, socketDir string) error {
				if i.IsCoordinator() {
					return nil
				}
				if tc.cancel {
					cancel()
					<-ctx.Done()
					return ctx.Err()
				}
				return tc.want
			}
			_, err := Create(ctx, o)
			if err == nil || (tc.want != nil && !errors.Is(err, tc.want)) {
				t.Errorf("Create: %v, want %v", err, tc.want)
			}
			if tc.existing {
				fi, err := os.Stat(dir)
				entries, _ := os.ReadDir(dir)
				if err != nil || len(entries) > 0 || fi.Mode().Perm() != 0o750 || int(fi.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
					t.Errorf("the existing directory is not as before: %v, %v, %v", fi, entries, err)
				}
				_ = os.Remove(dir)
			}
			nothingLeft(t, dir, port, 3)
			if _, err := os.Stat(filepath.Join(base, "a")); err == nil {
				t.Error("the directory above is left")
			}
		})
	}
}

// Interrupting initdb itself leaves nothing either.
func TestCreateInterruptedEarly(t *testing.T) {
	needPostgres(t)
	dir := filepath.Join(tempDir(t), "c")
	port := freePorts(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Create(ctx, Options{Dir: dir, Segments: 2, Port: port}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Create: %v", err)
	}
	nothingLeft(t, dir, port, 3)
}

func TestDestroyRefuses(t *testing.T) {
	dir := tempDir(t)
	if _, err := Open(dir); !errors.Is(err, ErrNotCluster) {
		t.Errorf("Open of an empty directory: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "absent")); !errors.Is(err, ErrNotCluster) {
		t.Errorf("Open of nothing: %v", err)
	}
	list := layout(dir, "mdw", Options{Segments: 1, Port: freePorts(t, 2), Address: "127.0.0.1"})
	list[1].Datadir = "/somewhere/else"
	path := filepath.Join(dir, "gp_segment_configuration")
	if err := topology.WriteFile(path, list); err != nil {
		t.Fatal(err)
	}
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Destroy(t.Context()); err == nil || !strings.Contains(err.Error(), "/somewhere/else") {
		t.Errorf("Destroy with data elsewhere: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	// What is not the cluster's stays.
	list[1].Datadir = filepath.Join(dir, "primary/gpseg0")
	mine := filepath.Join(dir, "mine")
	err = errors.Join(topology.WriteFile(path, list), os.WriteFile(mine, nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	if c, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	if err := c.Destroy(t.Context()); err == nil {
		t.Error("Destroy did not say that the directory stays")
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the cluster's list is left")
	}
}

// Root may want a cluster where the servers' user cannot go.
func TestCreateAway(t *testing.T) {
	needPostgres(t)
	if os.Geteuid() != 0 {
		t.Skip("only root makes clusters for somebody else")
	}
	closed := filepath.Join(tempDir(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "mpp")
	port := freePorts(t, 2)
	var said []string
	c, err := Create(t.Context(), Options{Dir: dir, Segments: 1, Port: port, Conf: fast, Progress: func(s string) { said = append(said, s) }})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.Dir(), awayDir+"/mpp-") || !strings.Contains(said[0], c.Dir()) {
		t.Errorf("the cluster is in %s, and the first line says %q", c.Dir(), said[0])
	}
	if o, err := Open(dir); err != nil || o.Dir() != c.Dir() {
		t.Errorf("Open by the link: %v", err)
	}
	if _, err := Create(t.Context(), Options{Dir: dir, Segments: 1, Port: port + 10}); err == nil || !strings.Contains(err.Error(), "holds a cluster") {
		t.Errorf("a second create there: %v", err)
	}
	mustQuery(t, c.Coordinator(), "SELECT 1", "1")
	real := c.Dir()
	if c, err = Open(dir); err == nil {
		err = c.Destroy(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, dir, port, 2)
	nothingLeft(t, real, port, 2)
}

// createVar makes this test binary a process that makes a cluster in the
// directory, says so, and removes it again when its input ends.
const createVar = "TRUNKLINE_TEST_CREATE"

func createHere(dir string) {
	signal.Ignore(syscall.SIGHUP)
	port, _ := strconv.Atoi(os.Getenv(createVar + "_PORT"))
	c, err := Create(context.Background(), Options{Dir: dir, Segments: 1, Port: port, Conf: fast})
	if err == nil {
		fmt.Println("made by", os.Geteuid())
		_, _ = os.Stdin.Read(make([]byte, 1))
		err = c.Destroy(context.Background())
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// An ordinary user makes a cluster that is and runs as that user.
func TestCreateUnprivileged(t *testing.T) {
	needPostgres(t)
	if os.Geteuid() != 0 {
		t.Skip("not root: the other tests are this test")
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("no ordinary user to make a cluster as:", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	base := tempDir(t)
	if err := os.Chown(base, uid, gid); err != nil {
		t.Fatal(err)
	}
	// The test binary lies where only root can read it.
	program, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(filepath.Join(base, "test"), program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, port := filepath.Join(base, "c"), freePorts(t, 2)
	cmd := exec.Command(filepath.Join(base, "test"))
	cmd.Env = append(os.Environ(), createVar+"="+dir, fmt.Sprintf("%s_PORT=%d", createVar, port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "cluster of nobody", func() error {
		c, err := Open(dir)
		if err != nil {
			return err
		}
		return allReady(t.Context(), c)
	})
	_ = in.Close()
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "made by "+u.Uid) {
		t.Errorf("create by nobody: %v\n%s", err, out.String())
	}
	nothingLeft(t, dir, port, 2)
}
