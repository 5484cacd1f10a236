package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/topology"
)

// DataDir is the Source of an instance with that data directory: dbid from
// internal.auto.conf, port and process id from postmaster.pid, and content id,
// addresses and limits from what the server reads: postgresql.conf with the
// files it includes, and postgresql.auto.conf. Settings of set come after
// those.
func DataDir(dir datadir.Dir, set ...guc.Setting) Source {
	return Source{
		Facts: func() (Facts, error) { return readFacts(dir, set) },
		Postmaster: func() (port, pid int, err error) {
			pm, err := dir.Postmaster()
			return pm.Port, pm.Pid, err
		},
	}
}

func readFacts(dir datadir.Dir, set []guc.Setting) (f Facts, err error) {
	if f.Dbid, err = dir.Dbid(); err != nil {
		return f, err
	}
	conf, err := guc.ReadServerConf(string(dir))
	var text *guc.SyntaxError
	if errors.As(err, &text) {
		// As for the server, nothing of it counts. Who we are is known.
		f.AddressError = err
		f.Content, err = dir.Content()
		return f, err
	}
	if err != nil {
		return f, err
	}
	conf.Settings = append(conf.Settings, set...)
	if v, ok := conf.Get(guc.ContentID); ok {
		n, err := strconv.ParseInt(v, 0, 16)
		if err != nil {
			return f, fmt.Errorf("%s: %s = %q is not a number", dir.Conf(), guc.ContentID, v)
		}
		f.Content = int16(n)
	} else if f.Content, err = dir.Content(); err != nil {
		return f, err
	}
	list, _ := conf.Lookup(guc.ProxyAddresses)
	if list.Value == "" {
		if own, ok := conf.Lookup(guc.OwnProxyAddresses); ok {
			list = own
		}
	}
	if f.Addresses, err = topology.ParseAddresses(list.Value); err != nil {
		f.Addresses, f.AddressError = nil, fmt.Errorf("%s: %s: %w", list.Place(), list.Name, err)
	}
	_, gp, _ := guc.Split(conf)
	if f.MaxPacket, err = strconv.Atoi(gp[guc.MaxPacketSize]); err != nil {
		return f, fmt.Errorf("%s: %s: %w", dir.Conf(), guc.MaxPacketSize, err)
	}
	values, errs := guc.ProxyValues(conf)
	for name, field := range map[string]*time.Duration{
		guc.ProxyGrace: &f.Times.Grace, guc.ProxyHelloTimeout: &f.Times.HelloTimeout, guc.ProxyDialTimeout: &f.Times.DialTimeout,
		guc.ProxyPeerTimeout: &f.Times.PeerTimeout, guc.ProxyMinBackoff: &f.Times.MinBackoff, guc.ProxyMaxBackoff: &f.Times.MaxBackoff,
		guc.ProxyMirrorBackoff: &f.Times.MirrorBackoff,
	} {
		if v, ok := values[name]; ok {
			seconds, _ := strconv.ParseFloat(v, 64) // canonical
			*field = time.Duration(seconds * float64(time.Second))
		}
	}
	for name, field := range map[string]*int64{guc.ProxyMemory: &f.Memory, guc.ProxyMaxWindow: &f.MaxWindow} {
		if v, ok := values[name]; ok {
			kB, _ := strconv.ParseInt(v, 10, 64) // canonical
			*field = kB << 10
		}
	}
	f.AnySource = values[guc.ProxyCheckSource] == "off"
	f.ParameterError = errors.Join(errs...)
	return f, nil
}

// ConfigFor is the Config of `trunkline proxy` for a data directory. In the
// embedded cluster, which an instance's lock file tells, the dialect is the
// one with the magic; beside a Greenplum instance the proxy finds out, treats
// backends as Greenplum's expect and takes their socket over from Greenplum's
// own proxy. Settings of set go before those of the configuration files. The
// private folder is made if it is not there.
func ConfigFor(dir datadir.Dir, set ...guc.Setting) (Config, error) {
	if _, err := os.Stat(string(dir)); err != nil {
		return Config{}, err
	}
	if err := os.Mkdir(dir.Private(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return Config{}, err
	}
	cfg := Config{Source: DataDir(dir, set...), StatusSocket: dir.ProxySocket(), AckRefused: true, TakeOver: true}
	if _, err := os.Stat(dir.InstanceLock()); err == nil {
		cfg.Dialect, cfg.AckRefused, cfg.TakeOver = DialectMagic36, false, false
	}
	return cfg, nil
}
