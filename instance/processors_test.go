package instance

import (
	"runtime"
	"strconv"
	"testing"
)

// TestShareProcessors: the instances share what the process may have, not what
// the machine has; a user's word stands.
func TestShareProcessors(t *testing.T) {
	t.Setenv(processorsVar, "") // back at the end
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	may := 4*runtime.NumCPU() + 2 // shared by two, more than the machine has
	for _, c := range []struct{ may, instances, want int }{{may, 2, may / 2}, {may, 1, may}, {3, 2, 1}, {1, 5, 1}} {
		runtime.GOMAXPROCS(c.may)
		if got, now := shareProcessors(c.instances), runtime.GOMAXPROCS(0); got != strconv.Itoa(c.want) || now != c.want {
			t.Errorf("%d instances of %d processors: this has %d, its proxy %q; expected %d", c.instances, c.may, now, got, c.want)
		}
	}
	t.Setenv(processorsVar, "7")
	runtime.GOMAXPROCS(7)
	if got, now := shareProcessors(2), runtime.GOMAXPROCS(0); got != "" || now != 7 {
		t.Errorf("with %s set: %q, %d", processorsVar, got, now)
	}
}
