package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/topology"
)

// DataDir is the Source of an instance with that data directory: dbid from
// internal.auto.conf, content id and addresses from postgresql.conf, port and
// process id from postmaster.pid.
func DataDir(dir datadir.Dir) Source {
	return Source{
		Facts: func() (Facts, error) { return readFacts(dir) },
		Postmaster: func() (port, pid int, err error) {
			pm, err := dir.Postmaster()
			return pm.Port, pm.Pid, err
		},
	}
}

// ownAddresses is the list of a proxy beside a Greenplum instance whose
// gp_interconnect_proxy_addresses is empty, so that Greenplum's own proxy
// stays off the port.
const ownAddresses = "trunkline.proxy_addresses"

func readFacts(dir datadir.Dir) (f Facts, err error) {
	if f.Dbid, err = dir.Dbid(); err != nil {
		return f, err
	}
	if f.Content, err = dir.Content(); err != nil {
		return f, err
	}
	// Lines that cannot be understood are PostgreSQL's to complain about.
	conf, err := guc.ReadConf(dir.Conf())
	if conf == nil {
		return f, err
	}
	list, _ := conf.Get(guc.ProxyAddresses)
	name := guc.ProxyAddresses
	if list == "" {
		if own, ok := conf.Get(ownAddresses); ok {
			list, name = own, ownAddresses
		}
	}
	if f.Addresses, err = topology.ParseAddresses(list); err != nil {
		f.Addresses, f.AddressError = nil, fmt.Errorf("%s: %s: %w", dir.Conf(), name, err)
	}
	_, gp, _ := guc.Split(conf)
	if f.MaxPacket, err = strconv.Atoi(gp[guc.MaxPacketSize]); err != nil {
		return f, fmt.Errorf("%s: %s: %w", dir.Conf(), guc.MaxPacketSize, err)
	}
	return f, nil
}

// ConfigFor is the Config of `trunkline proxy` for a data directory. In the
// embedded cluster, which an instance's lock file tells, the dialect is the
// one with the magic; beside a Greenplum instance the proxy finds out and
// treats backends as Greenplum's expect. The private folder is made if it is
// not there.
func ConfigFor(dir datadir.Dir) (Config, error) {
	if _, err := os.Stat(string(dir)); err != nil {
		return Config{}, err
	}
	if err := os.Mkdir(dir.Private(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return Config{}, err
	}
	cfg := Config{Source: DataDir(dir), StatusSocket: dir.ProxySocket(), AckRefused: true}
	if _, err := os.Stat(dir.InstanceLock()); err == nil {
		cfg.Dialect, cfg.AckRefused = DialectMagic36, false
	}
	return cfg, nil
}
