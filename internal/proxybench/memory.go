package proxybench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Memory is what processes hold: user memory only. What the kernel keeps for
// their sockets is not in it.
type Memory struct {
	RSS  int64 `json:"rss_bytes"`
	PSS  int64 `json:"pss_bytes"`
	Anon int64 `json:"anonymous_bytes"` // heap and stacks
	FDs  int   `json:"descriptors"`
}

func (m Memory) plus(o Memory) Memory {
	return Memory{m.RSS + o.RSS, m.PSS + o.PSS, m.Anon + o.Anon, m.FDs + o.FDs}
}

func memoryOf(pid int) (m Memory, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return m, err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) != 3 {
			continue
		}
		kb, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "Rss:":
			m.RSS = kb << 10
		case "Pss:":
			m.PSS = kb << 10
		case "Anonymous:":
			m.Anon = kb << 10
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return m, err
	}
	m.FDs = len(fds)
	return m, nil
}

func memoryOfAll(pids []int) (sum Memory, each []Memory, err error) {
	for _, pid := range pids {
		m, err := memoryOf(pid)
		if err != nil {
			return sum, nil, err
		}
		sum = sum.plus(m)
		each = append(each, m)
	}
	return sum, each, nil
}

// settleStep is how long memory must stay the same to be settled.
var settleStep = 250 * time.Millisecond

// settled waits until the processes' memory hardly changes any more, and
// returns it.
func settled(ctx context.Context, pids []int) (sum Memory, each []Memory, err error) {
	const limit = 5 * time.Second
	last := Memory{}
	for begin := time.Now(); ; {
		if sum, each, err = memoryOfAll(pids); err != nil {
			return sum, each, err
		}
		if d := sum.RSS - last.RSS; max(d, -d) <= sum.RSS/200 && sum.FDs == last.FDs || time.Since(begin) > limit {
			return sum, each, nil
		}
		last = sum
		if err := sleep(ctx, settleStep); err != nil {
			return sum, each, err
		}
	}
}

// available is the memory the machine has left, and all of it.
func available() (left, all int64, err error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) != 3 {
			continue
		}
		kb, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "MemAvailable:":
			left = kb << 10
		case "MemTotal:":
			all = kb << 10
		}
	}
	if left == 0 || all == 0 {
		return 0, 0, errors.New("/proc/meminfo does not say how much memory is available")
	}
	return left, all, nil
}
