package rowsource

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// numbered is a row that tells its number and length.
func numbered(i, size int) []byte {
	b := make([]byte, 8+size)
	binary.BigEndian.PutUint64(b, uint64(i))
	for k := range size {
		b[8+k] = byte(i + k)
	}
	return b
}

// TestQueue writes and reads in every order of doing so: no row is lost,
// doubled, changed or overtaken, whether it went through the file or not.
func TestQueue(t *testing.T) {
	inFile := false
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 100, 5000, queueChunk - 12, queueChunk, 300_000}), 0, 60).Draw(t, "sizes")
		pauses := rapid.SliceOfN(rapid.SampledFrom([]int{0, 0, 0, 0, 1, 50}), len(sizes), len(sizes)).Draw(t, "pauses")
		room := NewMemory(2 * queueChunk)
		q := NewQueue(room)
		defer func() {
			if q.Close(); room.used.Load() != 0 {
				t.Errorf("%d bytes are still taken", room.used.Load())
			}
		}()
		read := make(chan int)
		got := make(chan error, 1)
		go func() {
			i := 0
			got <- q.Read(context.Background(), func(row []byte) error {
				if want := numbered(i, sizes[i]); string(row) != string(want) {
					return fmt.Errorf("row %d is not what was written", i)
				}
				i++
				read <- i
				return nil
			})
			close(read)
		}()
		seen := 0
		take := func() {
			if n, ok := <-read; ok {
				seen = n
			}
		}
		for i, size := range sizes {
			if err := q.Add(numbered(i, size)); err != nil {
				t.Fatal(err)
			}
			for k := 0; k < pauses[i] && seen <= i; k++ {
				take() // the reader keeps up, or falls behind
			}
			q.mu.Lock()
			inFile = inFile || q.filed > 0
			if q.bytes > 2*queueChunk {
				t.Fatalf("%d bytes in memory", q.bytes)
			}
			q.mu.Unlock()
		}
		q.End()
		for seen < len(sizes) {
			before := seen
			if take(); seen == before {
				break
			}
		}
		if err := <-got; err != nil || seen != len(sizes) {
			t.Fatalf("%d of %d rows: %v", seen, len(sizes), err)
		}
		if err := q.Read(context.Background(), nil); err != ErrReadTwice {
			t.Fatalf("read again: %v", err)
		}
	})
	if !inFile {
		t.Error("no row ever went through the file")
	}
}

// TestQueueFails ends a reader that waits: by a failure, by its context, by the
// queue's end.
func TestQueueFails(t *testing.T) {
	boom := errors.New("boom")
	for name, end := range map[string]func(q *Queue, cancel context.CancelCauseFunc){
		"fail":   func(q *Queue, _ context.CancelCauseFunc) { q.Fail(boom) },
		"cancel": func(_ *Queue, cancel context.CancelCauseFunc) { cancel(boom) },
		"close":  func(q *Queue, _ context.CancelCauseFunc) { q.Close() },
	} {
		synctest.Test(t, func(t *testing.T) {
			q := NewQueue(NewMemory(1 << 20))
			defer q.Close()
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			got := make(chan error, 1)
			rows := 0
			go func() { got <- q.Read(ctx, func([]byte) error { rows++; return nil }) }()
			if err := q.Add([]byte("a")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the reader has it and waits
			end(q, cancel)
			want := boom
			if name == "close" {
				want = context.Canceled
			}
			if err := <-got; err != want || rows != 1 {
				t.Errorf("%s: %d rows, %v", name, rows, err)
			}
			if err := q.Add([]byte("b")); name != "cancel" && err != want {
				t.Errorf("%s: Add says %v", name, err)
			}
		})
	}
}

// TestQueueWithoutReader drops what nobody has read, without a word about
// what is complete.
func TestQueueWithoutReader(t *testing.T) {
	q := NewQueue(NewMemory(1 << 20))
	for i := range 3 {
		if err := q.Add(numbered(i, 3<<20)); err != nil {
			t.Fatal(err)
		}
	}
	q.End()
	q.Close()
	if err := q.Read(t.Context(), func([]byte) error { return nil }); err == nil {
		t.Error("rows that are gone were read to an end")
	}
}

// TestQueueKeeps: the rows of a queue that keeps them can be read again, from memory and
// from its file, also while they come.
func TestQueueKeeps(t *testing.T) {
	for _, room := range []int64{0, 1 << 20} {
		q := NewQueue(NewMemory(room))
		q.Keep()
		want := 0
		read := func() (n int) {
			err := q.Read(t.Context(), func(row []byte) error {
				if string(row) != fmt.Sprint("row ", n) {
					t.Fatalf("row %d is %q", n, row)
				}
				n++
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		done := make(chan int)
		go func() { done <- read() }()
		for ; want < 100_000; want++ {
			if err := q.Add(fmt.Append(nil, "row ", want)); err != nil {
				t.Fatal(err)
			}
		}
		q.End()
		if n := <-done; n != want {
			t.Errorf("the first time %d rows", n)
		}
		for range 2 {
			if n := read(); n != want {
				t.Errorf("again %d rows", n)
			}
		}
		stop := errors.New("enough")
		if err := q.Read(t.Context(), func([]byte) error { return stop }); err != stop {
			t.Error(err)
		}
		if n := read(); n != want {
			t.Errorf("after an error %d rows", n)
		}
		q.Close()
		if err := q.Read(t.Context(), func([]byte) error { return nil }); err == nil {
			t.Error("a closed queue is read")
		}
	}
}
