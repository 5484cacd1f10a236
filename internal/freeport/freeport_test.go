package freeport

import (
	"fmt"
	"net"
	"testing"
)

func TestAdjacent(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		first, err := Adjacent(3, -1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []int{first, first + 1, first + 2, first - 1000, first - 999, first - 998} {
			if seen[p] {
				t.Errorf("port %d was given twice", p)
			}
			seen[p] = true
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
	}
	for _, n := range []int{0, -1, 1 << 20} {
		if p, err := Adjacent(n); err == nil {
			t.Errorf("%d ports: %d", n, p)
		}
	}
}

// A port somebody listens on is not given.
func TestTaken(t *testing.T) {
	p, err := One()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	given[p].Close() // as if it had never been given
	if take([]int{p}) {
		t.Errorf("port %d counts as free while it is listened on", p)
	}
}

// A port that another process has been given is not given, though nobody listens
// on it yet.
func TestGivenElsewhere(t *testing.T) {
	p, err := One()
	if err != nil {
		t.Fatal(err)
	}
	if take([]int{p}) {
		t.Errorf("port %d was given twice", p)
	}
	given[p].Close()
	if !take([]int{p}) {
		t.Errorf("port %d is not free though the process that had it has ended", p)
	}
	other, err := mark(p + 1)
	if err != nil {
		t.Skipf("port %d, the next one, belongs to another process already, so it cannot be played here: %v", p+1, err)
	}
	defer other.Close()
	given[p].Close()
	if take([]int{p, p + 1}) {
		t.Errorf("ports %d and %d are free, of which the second is given elsewhere", p, p+1)
	}
	if !take([]int{p}) {
		t.Errorf("port %d is not free after it was refused together with the next", p)
	}
}
