package instance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/trunkline-db/trunkline/datadir"
)

// notifyVar names the environment variable with the number of the descriptor
// on which a started instance says that it is ready, or why it is not.
const notifyVar = "TRUNKLINE_NOTIFY_FD"

// againVar is set in the environment of an instance that a neighbour starts
// again: it shall only run if its run file still exists.
const againVar = "TRUNKLINE_START_AGAIN"

// StartedAgain tells whether this process was started by a neighbour in place
// of a dead instance: [Options].OnlyIfWanted is wanted then.
func StartedAgain() bool { return os.Getenv(againVar) != "" }

// Process is an instance process started by [Spawn].
type Process struct {
	Pid    int
	dir    datadir.Dir
	notify *os.File
	exited chan struct{}
}

// Spawn starts `binary instance -D dir` detached from this process: in a
// session of its own, its output in log/instance.log, and as the owner of the
// data directory when root does it. The process outlives this one; while this
// one lives, a goroutine waits to reap it.
//
// The caller calls either Ready or Forget.
func Spawn(dir datadir.Dir, binary string) (*Process, error) {
	return spawn(dir, binary)
}

func spawn(dir datadir.Dir, binary string, env ...string) (*Process, error) {
	uid, gid, err := owner(string(dir))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "instance", "-D", string(dir))
	cmd.Dir = string(dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cred, err := Credential(uid, gid); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	} else if cred != nil {
		cmd.SysProcAttr.Credential = cred
	}
	log, err := openLog(dir, "instance.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(append(Environ(uid), notifyVar+"=3"), env...)
	if err := cmd.Start(); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("start instance %s: %w", dir, err)
	}
	p := &Process{Pid: cmd.Process.Pid, dir: dir, notify: r, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// Ready waits until the instance serves. It returns the instance's own words
// when it could not start, an error matching ErrRunning when another process
// runs it already, and ctx's cause when that ends first.
func (p *Process) Ready(ctx context.Context) error {
	defer p.notify.Close()
	stop := context.AfterFunc(ctx, func() { _ = p.notify.Close() })
	defer stop()
	line, err := bufio.NewReader(io.LimitReader(p.notify, 64<<10)).ReadString('\x00')
	if ctx.Err() != nil {
		return fmt.Errorf("instance %s is not ready: %w", p.dir, context.Cause(ctx))
	}
	line = strings.TrimSuffix(line, "\x00")
	switch {
	case err != nil:
		return fmt.Errorf("instance %s ended while starting; see %s/instance.log", p.dir, p.dir.LogDir())
	case line == "ready":
		return nil
	case line == "running":
		return fmt.Errorf("%s: %w", p.dir, ErrRunning)
	default:
		return errors.New(strings.TrimPrefix(line, "error "))
	}
}

// Forget gives up waiting for Ready.
func (p *Process) Forget() { _ = p.notify.Close() }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Credential returns what to start a process with so that it runs as uid: nil
// when this process is that user already. Only root can be somebody else, and
// root itself is refused because PostgreSQL does not run as root.
func Credential(uid, gid int) (*syscall.Credential, error) {
	switch me := os.Geteuid(); {
	case uid == 0:
		return nil, errors.New("owned by root, and PostgreSQL does not run as root: give it to an ordinary user (chown)")
	case me == uid:
		return nil, nil
	case me != 0:
		return nil, fmt.Errorf("owned by user id %d, not by you (%d): do this as its owner or as root", uid, me)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// Notifier tells the process that started this one how its start went, if it
// wants to know.
type Notifier struct{ f *os.File }

// NewNotifier takes over the descriptor that [Spawn] passed on, if any.
func NewNotifier() *Notifier {
	fd, err := strconv.Atoi(os.Getenv(notifyVar))
	if err != nil || fd < 3 {
		return &Notifier{}
	}
	_ = os.Unsetenv(notifyVar)
	syscall.CloseOnExec(fd)
	return &Notifier{os.NewFile(uintptr(fd), "notify")}
}

// Ready says that the instance serves.
func (n *Notifier) Ready() { n.say("ready") }

// Failed says why it does not. Only the first call of Ready or Failed counts.
func (n *Notifier) Failed(err error) {
	if errors.Is(err, ErrRunning) {
		n.say("running")
		return
	}
	n.say("error " + err.Error())
}

func (n *Notifier) say(s string) {
	if n.f == nil {
		return
	}
	_, _ = n.f.WriteString(s + "\x00") // the starter may be gone
	_ = n.f.Close()
	n.f = nil
}
