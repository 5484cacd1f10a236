package instance

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// serverEnv is the environment of the children: that of this process without
// libpq's variables, and with what the utilities need when a function in the
// server starts them.
func serverEnv(f *facts, pgbin string) []string {
	env := Environ(os.Geteuid())
	path := []string{filepath.Join(f.clusterDir, "bin"), pgbin, lookup(env, "PATH")}
	env = set(env, "PATH", strings.Join(path, ":"))
	env = set(env, "GPHOME", f.clusterDir)
	if c, ok := f.coordinator(); ok {
		env = set(env, "PGHOST", c.Address)
		env = set(env, "PGPORT", strconv.Itoa(c.Port))
		env = set(env, "COORDINATOR_DATA_DIRECTORY", c.Datadir)
		env = set(env, "MASTER_DATA_DIRECTORY", c.Datadir)
	}
	return set(env, "PGUSER", Superuser)
}

// Environ is the environment of this process as the user uid would have it:
// nothing of libpq's, no notification descriptor, that user's home and name.
func Environ(uid int) []string {
	var env []string
	for _, kv := range os.Environ() {
		k, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(k, "PG"), strings.HasPrefix(k, "XDG_"), k == notifyVar, k == againVar:
		case k == "HOME", k == "USER", k == "LOGNAME", k == "OLDPWD", k == "PWD", k == "MAIL":
		default:
			env = append(env, kv)
		}
	}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		env = set(env, "HOME", u.HomeDir)
		env = set(env, "USER", u.Username)
		env = set(env, "LOGNAME", u.Username)
	}
	if lookup(env, "PATH") == "" {
		env = set(env, "PATH", "/usr/local/bin:/usr/bin:/bin")
	}
	if lookup(env, "LANG") == "" && lookup(env, "LC_ALL") == "" {
		env = set(env, "LANG", "C.UTF-8")
	}
	return env
}

func lookup(env []string, key string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}

func set(env []string, key, value string) []string {
	for i, kv := range env {
		if strings.HasPrefix(kv, key+"=") {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}
