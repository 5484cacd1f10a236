package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/topology"
)

// The defaults of [Options].
const (
	DefaultSegments = 3
	DefaultPort     = 15432
	DefaultAddress  = "127.0.0.1"
)

// maxSegments keeps a slip of the finger from starting hundreds of servers.
const maxSegments = 64

// layout returns the instances of a cluster in dir: dbid 1 is the coordinator
// with the port given, each other instance has the next dbid and port.
func layout(dir, hostname string, o Options) []topology.Instance {
	row := func(content int16, role, mode byte, sub string) topology.Instance {
		return topology.Instance{
			Content: content, Role: role, PreferredRole: role, Mode: mode,
			Status: topology.StatusUp, Hostname: hostname, Address: o.Address,
			Datadir: filepath.Join(dir, sub),
		}
	}
	list := []topology.Instance{row(-1, topology.RolePrimary, topology.ModeNotInSync, "coordinator/gpseg-1")}
	for k := range o.Segments {
		list = append(list, row(int16(k), topology.RolePrimary, topology.ModeNotInSync, fmt.Sprintf("primary/gpseg%d", k)))
	}
	if o.Standby {
		list = append(list, row(-1, topology.RoleMirror, topology.ModeSynced, "standby/gpseg-1"))
	}
	for k := range list {
		list[k].Dbid, list[k].Port = uint16(k+1), o.Port+k
		if o.Host != nil {
			list[k].Address = ""
			list[k].Address = o.Host(list[k]).Address
		}
	}
	return list
}

// checkOptions fills in the defaults and refuses what cannot be.
func checkOptions(o *Options) error {
	if o.Segments == 0 {
		o.Segments = DefaultSegments
	}
	if o.Port == 0 {
		o.Port = DefaultPort
	}
	if o.Address == "" {
		o.Address = DefaultAddress
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Dir == "" {
		return errors.New("no directory given for the cluster")
	}
	if o.Segments < 1 || o.Segments > maxSegments {
		return fmt.Errorf("%d segments: a cluster has 1 to %d", o.Segments, maxSegments)
	}
	last := o.Port + o.Segments
	if o.Standby {
		last++
	}
	if o.Port < 1 || last > 65535 {
		return fmt.Errorf("the instances would have the ports %d to %d, but ports go from 1 to 65535", o.Port, last)
	}
	if strings.ContainsAny(o.Address, " \t\n|'\"\\") {
		return fmt.Errorf("%q is not a host name or address", o.Address)
	}
	return nil
}

// checkPath refuses directories whose name would not survive in PATH, in
// gp_segment_configuration or in a unix socket's address.
func checkPath(dir string, list []topology.Instance) error {
	if i := strings.IndexFunc(dir, func(r rune) bool { return r < ' ' || r == ':' || r == '|' }); i >= 0 {
		return fmt.Errorf("the path %q holds %q, which a cluster's path may not", dir, dir[i])
	}
	for _, inst := range list {
		if over := len(inst.Datadir) - datadir.MaxLen; over > 0 {
			return fmt.Errorf("the path %s is %d bytes too long: the sockets in %s would not fit the system's limit; choose a shorter directory",
				dir, over, inst.Datadir)
		}
	}
	return nil
}

// checkPorts tells of every port that cannot be had.
func (c *Cluster) checkPorts(ctx context.Context) error {
	list := c.instances
	var taken, errs []string
	for _, inst := range list {
		err := c.inNetwork(inst, func() error {
			lctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			var lc net.ListenConfig
			ln, err := lc.Listen(lctx, "tcp", net.JoinHostPort(inst.Address, strconv.Itoa(inst.Port)))
			if err != nil {
				return err
			}
			return ln.Close()
		})
		switch {
		case err == nil:
		case errors.Is(err, syscall.EADDRINUSE):
			taken = append(taken, strconv.Itoa(inst.Port))
		default:
			errs = append(errs, err.Error())
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("cannot listen on address %s: %s; choose an address of this machine with --address", list[0].Address, errs[0])
	}
	if len(taken) > 0 {
		return fmt.Errorf("in use on %s: port %s (needed: %d to %d, one an instance); end what uses them or choose others with --port",
			list[0].Address, strings.Join(taken, ", "), list[0].Port, list[len(list)-1].Port)
	}
	return ctx.Err()
}

// checkAbsent refuses a directory with something in it. empty tells that it
// exists.
func checkAbsent(dir string) (empty bool, err error) {
	fi, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !fi.IsDir() {
		if _, oerr := Open(dir); oerr == nil {
			return false, inUse(dir)
		}
		return false, fmt.Errorf("%s exists and is not a directory", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	if len(entries) > 0 {
		return false, inUse(dir)
	}
	return true, nil
}

func inUse(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "gp_segment_configuration")); err == nil {
		return fmt.Errorf("%s holds a cluster already: start it with `trunkline cluster start %s`, or remove it with `trunkline cluster destroy %s`", dir, dir, dir)
	}
	return fmt.Errorf("%s is not empty: give a directory that is absent or empty", dir)
}
