// Package atomicfile replaces files whole: a reader sees the old bytes or the
// new ones, also after a crash.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Write makes path hold data. A file that is already there keeps its mode and
// owner, and a symbolic link stays one: what it points to is replaced. A new
// file gets perm, whatever the umask. The data and the directory entry are on
// disk when Write returns nil; on an error the old file is untouched.
func Write(path string, data []byte, perm fs.FileMode) (err error) {
	if real, e := filepath.EvalSymlinks(path); e == nil {
		path = real
	} else if !errors.Is(e, fs.ErrNotExist) {
		return e
	}
	old, err := os.Stat(path)
	switch {
	case err == nil && !old.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case err == nil:
		perm = old.Mode().Perm()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".new*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err = f.Chmod(perm); err != nil {
		return err
	}
	if old != nil {
		if err = keepOwner(f, old); err != nil {
			return err
		}
	}
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func keepOwner(f *os.File, old fs.FileInfo) error {
	want, ok := old.Sys().(*syscall.Stat_t)
	if !ok || (int(want.Uid) == os.Geteuid() && int(want.Gid) == os.Getegid()) {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
