package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/instance"
)

const (
	// systemUser runs the servers when root makes the cluster.
	systemUser = "postgres"
	// awayDir is where a cluster lies that root wants in a directory which
	// systemUser may not enter.
	awayDir = "/var/lib/trunkline"
	// originFile in such a cluster holds the path of the link to it.
	originFile = "origin"
)

// account is who owns and runs a cluster.
type account struct {
	uid, gid int
	cred     *syscall.Credential // nil: this process's user
}

// accountFor returns this process's user, or systemUser for root.
func accountFor() (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	u, err := user.Lookup(systemUser)
	if err != nil {
		return account{}, fmt.Errorf("PostgreSQL does not run as root, and there is no user %q to run it as; "+
			"Debian's postgresql package makes it: apt-get install postgresql-%s", systemUser, instance.PostgresMajor)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return account{}, err
	}
	cred, err := instance.Credential(uid, gid)
	return account{uid, gid, cred}, err
}

// mayEnter reports whether the account can use dir as a working directory.
func (a account) mayEnter(dir string) bool {
	if a.cred == nil {
		return true // whatever fails later says so itself
	}
	cmd := exec.Command("/bin/true")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.cred}
	return cmd.Run() == nil
}

// chown gives a tree to the account.
func (a account) chown(root string) error {
	if a.cred == nil {
		return nil
	}
	return filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, a.uid, a.gid)
	})
}

// run runs a program as the account and returns an error with the last of
// what it printed. When ctx ends, the program and what it started is killed.
func (a account) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = instance.Environ(a.uid), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.cred, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("%s: %w:\n%s", filepath.Base(name), err, strings.Join(lines[max(0, len(lines)-8):], "\n"))
	}
	return nil
}

// place is where a new cluster's files go, and how to undo it.
type place struct {
	want string // the directory asked for, absolute
	real string // where the files are; != want when want is a link
	// emptied is set when want existed as an empty directory.
	emptied bool
	old     os.FileInfo    // of that directory
	steps   []func() error // how to undo what was made, in the order it was made
}

// choosePlace decides where the cluster asked for as dir goes. It makes
// nothing.
func choosePlace(dir string, a account) (*place, error) {
	want, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p := &place{want: want}
	if p.emptied, err = checkAbsent(want); err != nil {
		return nil, err
	}
	// The nearest directory above that exists decides, and its own links are
	// resolved: the servers know the cluster by its real path.
	parent, rest := filepath.Dir(want), []string{filepath.Base(want)}
	for {
		real, err := filepath.EvalSymlinks(parent)
		if err == nil {
			p.real = filepath.Join(append([]string{real}, rest...)...)
			parent = real
			break
		}
		if !errors.Is(err, os.ErrNotExist) || parent == filepath.Dir(parent) {
			return nil, err
		}
		rest = append([]string{filepath.Base(parent)}, rest...)
		parent = filepath.Dir(parent)
	}
	if p.emptied {
		if p.old, err = os.Stat(want); err != nil {
			return nil, err
		}
	}
	if !a.mayEnter(parent) {
		sum := sha256.Sum256([]byte(want))
		p.real = filepath.Join(awayDir, fmt.Sprintf("%s-%x", filepath.Base(want), sum[:4]))
		if _, err := os.Lstat(p.real); err == nil {
			return nil, fmt.Errorf("%s, where the cluster for %s would lie, exists already: remove it with `trunkline cluster destroy %s`",
				p.real, want, p.real)
		}
	}
	return p, nil
}

// away reports whether want is to be a link.
func (p *place) away() bool { return strings.HasPrefix(p.real, awayDir+"/") && p.real != p.want }

// make makes the directory, empty and the account's, and the link to it. It
// notes how to undo each step, so that undo after a failure removes what is
// ours and nothing else.
func (p *place) make(a account) error {
	if err := p.mkdirs(filepath.Dir(p.want)); err != nil {
		return err
	}
	switch {
	case p.away():
		if err := p.mkdirs(awayDir); err != nil {
			return err
		}
		if err := p.mkdir(p.real); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(p.real, originFile), []byte(p.want+"\n"), 0o644); err != nil {
			return err
		}
		if p.emptied {
			if err := os.Remove(p.want); err != nil {
				return err
			}
			p.later(func() error { return errors.Join(os.Mkdir(p.want, 0o700), p.restore()) })
		}
		if err := os.Symlink(p.real, p.want); err != nil {
			return err
		}
		p.later(func() error { return os.Remove(p.want) })
	case p.emptied:
		p.later(func() error {
			entries, err := os.ReadDir(p.real)
			for _, e := range entries {
				err = errors.Join(err, os.RemoveAll(filepath.Join(p.real, e.Name())))
			}
			return errors.Join(err, p.restore())
		})
		if err := os.Chmod(p.real, 0o755); err != nil {
			return err
		}
	default:
		if err := p.mkdir(p.real); err != nil {
			return err
		}
	}
	return a.chown(p.real)
}

func (p *place) later(f func() error) { p.steps = append(p.steps, f) }

// mkdir makes a directory that everybody may enter, whatever the umask.
func (p *place) mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	p.later(func() error { return os.RemoveAll(dir) })
	return os.Chmod(dir, 0o755)
}

// mkdirs is mkdir for dir and what is missing above it. Undoing it leaves
// directories that somebody else has put something into.
func (p *place) mkdirs(dir string) error {
	if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
		return nil
	}
	if err := p.mkdirs(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	p.later(func() error { _ = os.Remove(dir); return nil })
	return os.Chmod(dir, 0o755)
}

// undo takes back every step of make, and with it all that was put into the
// directory.
func (p *place) undo() error {
	var err error
	for i := len(p.steps) - 1; i >= 0; i-- {
		err = errors.Join(err, p.steps[i]())
	}
	p.steps = nil
	return err
}

// restore gives a directory that existed its owner and mode back.
func (p *place) restore() error {
	err := os.Chmod(p.want, p.old.Mode().Perm())
	if st, ok := p.old.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		err = errors.Join(err, os.Chown(p.want, int(st.Uid), int(st.Gid)))
	}
	return err
}
