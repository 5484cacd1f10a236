package proxy

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/icwire"
)

// asUser runs f on a thread of another user, which the kernel then takes for
// the user who connects.
func asUser(t *testing.T, uid int, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			done <- errno
			return
		}
		f()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Skipf("becoming user %d needs root: %v", uid, err)
	}
}

// A process of another user is refused by its credentials alone: the modes
// that keep it out are opened wide.
func TestForeignUser(t *testing.T) {
	const nobody = 65534
	if os.Geteuid() != 0 {
		t.Skip("connecting as another user needs root")
	}
	nodes := startCluster(t, 2, nil)
	qd := nodes[0]
	beside := startLive(t, nodes[1], qd, 1)
	k := key(1, 2, 99, 1)
	connect := func() (err error) {
		asUser(t, nobody, func() {
			fd, serr := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if serr != nil {
				err = serr
				return
			}
			f := os.NewFile(uintptr(fd), "backend")
			defer f.Close()
			if err = unix.Connect(fd, &unix.SockaddrUnix{Name: qd.socket()}); err != nil {
				return
			}
			var c net.Conn
			if c, err = net.FileConn(f); err != nil {
				return
			}
			defer c.Close()
			if err = c.SetDeadline(time.Now().Add(patience)); err != nil {
				return
			}
			_, _ = c.Write(k.Header(icwire.Hello, 0, icwire.Magic36).Append(nil, icwire.Magic36))
			var b []byte
			if b, err = io.ReadAll(c); len(b) > 0 {
				t.Errorf("another user was answered % x", b)
			}
		})
		return err
	}
	if err := os.Chmod(qd.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := connect(); err != syscall.EACCES {
		t.Errorf("against mode 0700: %v, want %v", err, syscall.EACCES)
	}
	if err := os.Chmod(qd.socket(), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := connect(); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection ended by %v", err)
	}
	if n := qd.p.Status().Rejections["user"]; n != 1 {
		t.Errorf("%d counted as of another user", n)
	}
	beside.goesOn()
	if b, bb := qd.hello(k), nodes[1].hello(back(k)); b == nil || bb == nil {
		t.Error("our own user is not served")
	}
}

// The file another user has put in the place of the socket is named.
func TestForeignSocketFile(t *testing.T) {
	const nobody = 65534
	if os.Geteuid() != 0 {
		t.Skip("making a file of another user needs root")
	}
	path := filepath.Join(t.TempDir(), "s")
	write(t, path, "")
	if err := os.Chown(path, nobody, -1); err != nil {
		t.Fatal(err)
	}
	if err := notOurs(path, syscall.EPERM); !strings.Contains(err.Error(), "belongs to user id 65534 and has to be removed: operation not permitted") {
		t.Error(err)
	}
	write(t, path+"2", "")
	if err := notOurs(path+"2", syscall.EPERM); err != syscall.EPERM {
		t.Error(err)
	}
}
