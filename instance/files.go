package instance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/trunkline-db/trunkline/datadir"
)

// writeFile replaces path by a temporary file and rename. When root does it,
// the file goes to the owner of the data directory.
func writeFile(path string, data []byte, mode os.FileMode, dir datadir.Dir) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = giveToOwner(dir, f.Name())
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// giveToOwner gives a file that root made to the owner of the data directory.
func giveToOwner(dir datadir.Dir, path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := owner(string(dir))
	if err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

// makePrivate makes the data directory's private folder when it is missing.
func makePrivate(dir datadir.Dir) error {
	err := os.Mkdir(dir.Private(), 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return giveToOwner(dir, dir.Private())
}

// owner returns who owns path.
func owner(path string) (uid, gid int, err error) {
	fi, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid), nil
}

// logRotateSize is the size at which a log file is put aside when its process
// starts.
const logRotateSize = 64 << 20

// openLog opens a log file of the data directory for appending, making the
// folder when needed.
func openLog(dir datadir.Dir, name string) (*os.File, error) {
	if err := os.Mkdir(dir.LogDir(), 0o700); err == nil {
		if err := giveToOwner(dir, dir.LogDir()); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(dir.LogDir(), name)
	if fi, err := os.Stat(path); err == nil && fi.Size() > logRotateSize {
		_ = os.Rename(path, path+".old")
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := giveToOwner(dir, path); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// logTail returns the last lines of a log file written since offset, at most
// max bytes, for an error message.
func logTail(path string, offset int64, max int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return ""
	}
	if fi.Size()-offset > max {
		offset = fi.Size() - max
	}
	if fi.Size() <= offset {
		return ""
	}
	b := make([]byte, fi.Size()-offset)
	n, _ := f.ReadAt(b, offset)
	return string(b[:n])
}
