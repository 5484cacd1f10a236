package logical

import (
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// TestStrayBye has two proxies hear a BYE of a connection that neither knows, for one
// of them was killed in between: they do not go on telling each other.
func TestStrayBye(t *testing.T) {
	const old, early = "an older command", "early"
	for _, how := range [][2]string{{early, early}, {early, old}, {old, early}, {old, old}} {
		t.Run(how[0]+", "+how[1], func(t *testing.T) {
			now := time.Unix(1000, 0)
			key := icwire.Key{Session: 7, Command: 5, SendSlice: 1,
				Local: icwire.End{Content: -1, Dbid: 1, Pid: 10}, Remote: icwire.End{Content: 0, Dbid: 2, Pid: 20}}
			ends := [2]struct {
				*Table
				key icwire.Key
			}{{NewTable(), key}, {NewTable(), key}}
			ends[1].key.Local, ends[1].key.Remote = key.Remote, key.Local
			for i, e := range ends {
				if how[i] == old {
					// The backends run a later command by now.
					e.key.Command++
					if _, _, _, refused := e.Hello(e.key, now); refused != "" {
						t.Fatal(refused)
					}
				}
			}
			byes := 0
			var carry func(to int, did []Do)
			carry = func(to int, did []Do) {
				for _, d := range did {
					if d.Conn == nil {
						continue
					}
					if d.Effect.Ended {
						ends[1-to].Remove(d.Conn)
					}
					if !d.Effect.Bye {
						continue
					}
					if byes++; byes > 10 {
						t.Fatal("they go on and on")
					}
					c, e := ends[to].Bye(ends[to].key, now)
					carry(1-to, []Do{{c, e}})
				}
			}
			c, e := ends[0].Bye(ends[0].key, now)
			carry(1, []Do{{c, e}})
			for range 60 {
				now = now.Add(30 * time.Second)
				for i := range ends {
					carry(1-i, ends[i].Expire(now))
				}
			}
			if byes == 0 {
				t.Error("nobody has said anything")
			}
			for i, e := range ends {
				if conns, _ := e.Early(); conns > 0 || len(e.tombs) > 0 {
					t.Errorf("end %d has %d early connections and remembers %d", i, conns, len(e.tombs))
				}
			}
			t.Logf("%d times BYE", byes)
		})
	}
}
