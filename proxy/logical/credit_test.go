package logical

import (
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// A window never falls below the least one, however little of the budget is
// left: with none its sender would wait for ever.
func TestWindowHasAFloor(t *testing.T) {
	table := NewTable()
	table.Credit, table.RTT = true, time.Hour // so that every backend is quick
	table.Budget = NewBudget(1<<20, 0)
	// The other connections have grown by all there is.
	table.Budget.grown.Add(1 << 20)
	key := icwire.Key{Session: 1, Command: 1, Local: icwire.End{Dbid: 1, Pid: 1}, Remote: icwire.End{Content: 1, Dbid: 2, Pid: 2}}
	now := time.Unix(1000, 0)
	c, _, _, refused := table.Hello(key, now)
	if refused != "" {
		t.Fatal(refused)
	}
	if !c.Sent(1, 1) { // it sends first, and so has no window of its own
		t.Fatal("may not send")
	}
	may := uint64(MinWindow) // what the remote end may have sent
	for got := uint64(0); got < 4*GrowAfter; {
		n := int(min(may-got, 4096))
		if n == 0 {
			t.Fatalf("all %d bytes have been taken, and no more may be sent; the window is %d", got, c.window)
		}
		got += uint64(n)
		_, keep, units, e := table.Data(key, make([]byte, n), true, now)
		if !keep {
			t.Fatal("dropped")
		}
		may = max(may, e.Grant)
		e = table.Taken(c, n, units, now)
		may = max(may, e.Grant)
	}
	if c.window != MinWindow {
		t.Errorf("the window is %d, want %d", c.window, MinWindow)
	}
}

// A packet that is to go at once needs a key nobody has, and room for all of it.
func TestVacant(t *testing.T) {
	key := icwire.Key{Command: 1, Local: icwire.End{Dbid: 1, Pid: 1}, Remote: icwire.End{Dbid: 2, Pid: 2}}
	now := time.Unix(1000, 0)
	for _, credit := range []bool{false, true} {
		table := NewTable()
		table.Credit, table.Free = credit, 10_000
		room := 10_000
		if !credit {
			room = table.Window.Pause * table.Payload
		}
		if !table.Vacant(key, room) || table.Vacant(key, room+1) {
			t.Errorf("credit %v: there is not just room for %d bytes", credit, room)
		}
		if _, keep, _, _ := table.Data(key, make([]byte, 1), true, now); !keep || table.Vacant(key, 1) {
			t.Errorf("credit %v: vacant with a packet that is early", credit)
		}
		next := key
		next.Command++
		c, _, _, refused := table.Hello(next, now)
		if refused != "" || table.Vacant(next, 1) {
			t.Errorf("credit %v: vacant with a backend, %s", credit, refused)
		}
		if c.Room() != room {
			t.Errorf("credit %v: room for %d bytes, expected %d", credit, c.Room(), room)
		}
	}
}
