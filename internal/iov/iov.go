// Package iov reads and writes several pieces of memory with one system call,
// without allocating: the list of pieces is used again and again.
//
// The calls do not tell the Go scheduler, as nothing here blocks. It would take
// a processor away from every call that copies for longer than 20 µs, look for
// another thread to run it, and find both soon after.
package iov

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Max is how many pieces one call takes at most.
const Max = 1024 // IOV_MAX

// Vec is a list of pieces of memory. The zero value is empty. It must not be
// used by two goroutines at once.
type Vec struct {
	iov   []unix.Iovec
	done  int // how many of them have been written
	bytes int // in those that are left
}

// Add appends b, which must stay as it is until the Vec is reset.
func (v *Vec) Add(b []byte) {
	if len(b) == 0 {
		return
	}
	e := unix.Iovec{Base: &b[0]}
	e.SetLen(len(b))
	v.iov = append(v.iov, e)
	v.bytes += len(b)
}

// Len is how many bytes are left.
func (v *Vec) Len() int { return v.bytes }

// Reset empties the Vec and lets go of the memory it named.
func (v *Vec) Reset() {
	clear(v.iov)
	v.iov, v.done, v.bytes = v.iov[:0], 0, 0
}

// Write writes to a descriptor that does not block as much as it takes, and
// takes that off the Vec. It returns nil, too, when that is not all.
func (v *Vec) Write(fd int) error {
	for v.bytes > 0 {
		n, err := v.call(unix.SYS_WRITEV, fd)
		switch err {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return nil
		default:
			return err
		}
		left := min(len(v.iov)-v.done, Max)
		short := n < v.sum(left)
		v.skip(n)
		if short {
			return nil // the kernel is full
		}
	}
	return nil
}

// Read reads into the pieces and returns how many bytes, with unix.EAGAIN when
// there is nothing to read yet.
func (v *Vec) Read(fd int) (int, error) {
	for {
		n, err := v.call(unix.SYS_READV, fd)
		if err == unix.EINTR {
			continue
		}
		if err != 0 {
			return 0, err
		}
		return n, nil
	}
}

// Rest calls f for each piece that is left.
func (v *Vec) Rest(f func(b []byte)) {
	for _, e := range v.iov[v.done:] {
		f(unsafe.Slice(e.Base, int(e.Len)))
	}
}

// Read reads from a descriptor that does not block into b, with unix.EAGAIN when
// there is nothing to read yet. It returns 0 and no error at the end.
func Read(fd int, b []byte) (int, error) {
	for {
		n, _, err := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if err == unix.EINTR {
			continue
		}
		if err != 0 {
			return 0, err
		}
		return int(n), nil
	}
}

func (v *Vec) call(trap uintptr, fd int) (int, unix.Errno) {
	l := v.iov[v.done:]
	n, _, err := unix.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&l[0])), uintptr(min(len(l), Max)))
	return int(n), err
}

func (v *Vec) sum(pieces int) int {
	n := 0
	for _, e := range v.iov[v.done : v.done+pieces] {
		n += int(e.Len)
	}
	return n
}

func (v *Vec) skip(n int) {
	v.bytes -= n
	for n > 0 {
		e := &v.iov[v.done]
		k := min(n, int(e.Len))
		n -= k
		if k == int(e.Len) {
			*e = unix.Iovec{}
			v.done++
			continue
		}
		b := unsafe.Slice(e.Base, int(e.Len))[k:]
		e.Base = &b[0]
		e.SetLen(len(b))
	}
}
