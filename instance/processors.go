package instance

import (
	"os"
	"runtime"
	"strconv"
)

// processorsVar is the Go runtime's own; a user's setting stands.
const processorsVar = "GOMAXPROCS"

// shareProcessors limits how many processors this process uses at once, and returns
// what its proxy should be told, "" for nothing. All instances of a cluster are on
// one machine: with more threads than there are processors between them they wake
// each other for nothing, which costs a small query a third of its time and gains
// a big one nothing. What a container may have is less than what the machine has.
func shareProcessors(instances int) string {
	if os.Getenv(processorsVar) != "" {
		return ""
	}
	n := max(1, runtime.GOMAXPROCS(0)/max(1, instances))
	runtime.GOMAXPROCS(n)
	return strconv.Itoa(n)
}
