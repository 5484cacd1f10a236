package iov

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func pair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// What does not fit the kernel is left in the Vec, and goes out later, whole
// and in order, however the pieces are cut.
func TestWriteInParts(t *testing.T) {
	a, b := pair(t)
	var v Vec
	var want []byte
	for i := range 3000 {
		piece := bytes.Repeat([]byte{byte(i)}, i%700)
		want = append(want, piece...)
		v.Add(piece)
	}
	var got []byte
	buf := make([]byte, 5001)
	for rounds := 0; len(got) < len(want); rounds++ {
		if err := v.Write(a); err != nil {
			t.Fatal(err)
		}
		if rounds == 0 && v.Len() == 0 {
			t.Fatal("a megabyte went into an unread socket at once")
		}
		rest := 0
		v.Rest(func(b []byte) { rest += len(b) })
		if rest != v.Len() {
			t.Fatalf("%d bytes are left, Len says %d", rest, v.Len())
		}
		n, err := unix.Read(b, buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("other bytes came than were written")
	}
}

func TestRead(t *testing.T) {
	a, b := pair(t)
	var v Vec
	one, two := make([]byte, 3), make([]byte, 10)
	v.Add(one)
	v.Add(two)
	if n, err := v.Read(b); !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("%d bytes, %v of an empty socket", n, err)
	}
	if _, err := unix.Write(a, []byte("abcdef")); err != nil {
		t.Fatal(err)
	}
	if n, err := v.Read(b); n != 6 || err != nil || string(one) != "abc" || string(two[:3]) != "def" {
		t.Fatalf("%d bytes, %v: %q %q", n, err, one, two)
	}
}

func TestWriteError(t *testing.T) {
	a, b := pair(t)
	if err := unix.Shutdown(b, unix.SHUT_RD); err != nil {
		t.Fatal(err)
	}
	var v Vec
	v.Add([]byte("x"))
	if err := v.Write(a); !errors.Is(err, unix.EPIPE) {
		t.Fatalf("%v", err)
	}
}

func TestNoAllocation(t *testing.T) {
	a, b := pair(t)
	var v Vec
	piece, buf := make([]byte, 100), make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() {
		v.Reset()
		for range 20 {
			v.Add(piece)
		}
		if err := v.Write(a); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Read(b, buf); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Fatalf("%v allocations a call", n)
	}
}
