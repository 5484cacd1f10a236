package instance

import (
	"errors"
	"os"
	"sync"
	"testing"
)

func TestLock(t *testing.T) {
	dir := tempDir(t)
	if pid, running, err := Pid(dir); pid != 0 || running || err != nil {
		t.Fatalf("Pid without a lock file = %d, %v, %v", pid, running, err)
	}
	lk, err := acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	if pid, running, err := Pid(dir); pid != os.Getpid() || !running || err != nil {
		t.Fatalf("Pid = %d, %v, %v, want own pid and running", pid, running, err)
	}
	if _, err := acquire(dir); !errors.Is(err, ErrRunning) {
		t.Fatalf("second acquire: %v, want ErrRunning", err)
	}
	if lk.lost(dir) {
		t.Error("lock counts as lost while its file is there")
	}
	if err := os.Remove(dir.InstanceLock()); err != nil {
		t.Fatal(err)
	}
	if !lk.lost(dir) {
		t.Error("lock does not count as lost without its file")
	}
	write(t, dir.InstanceLock(), "1\n")
	if !lk.lost(dir) {
		t.Error("lock does not count as lost with another file in its place")
	}
	lk.release()
	if pid, running, err := Pid(dir); pid != 0 || running || err != nil {
		t.Fatalf("Pid after release = %d, %v, %v", pid, running, err)
	}
}

// A watcher that looks whether the lock is free holds it for an instant and
// must not make a starter believe that the instance runs.
func TestLockWhileWatched(t *testing.T) {
	dir := tempDir(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, _, err := Pid(dir); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 50 {
		lk, err := acquire(dir)
		if err != nil {
			t.Error(err)
			break
		}
		lk.release()
	}
	close(stop)
	wg.Wait()
}

func TestWanted(t *testing.T) {
	dir := tempDir(t)
	for _, want := range []bool{false, true, true, false} {
		if err := SetWanted(dir, want); err != nil {
			t.Fatal(err)
		}
		if got := Wanted(dir); got != want {
			t.Errorf("Wanted = %v after SetWanted(%v)", got, want)
		}
	}
}
