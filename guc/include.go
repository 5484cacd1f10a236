package guc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxIncludeDepth is PostgreSQL's limit on files that include files.
const maxIncludeDepth = 10

// ReadServerConf reads what a PostgreSQL server started on the data directory
// reads: postgresql.conf with the files it includes, then
// postgresql.auto.conf, whose settings come last and so are in force. An error
// names the file and the line; PostgreSQL would then not start, and keep its
// old values when it is reloaded. Every Setting has its File.
func ReadServerConf(dir string) (*Conf, error) {
	c := &Conf{}
	if err := c.read(filepath.Join(dir, "postgresql.conf"), 0); err != nil {
		return nil, err
	}
	err := c.read(filepath.Join(dir, "postgresql.auto.conf"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return c, nil
}

func (c *Conf) read(path string, depth int) error {
	if depth > maxIncludeDepth {
		return fmt.Errorf("%s: more than %d files include each other", path, maxIncludeDepth)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for n, line := range strings.Split(string(b), "\n") {
		name, raw, reason := scanLine(line)
		if reason != "" {
			return fmt.Errorf("%s: %w", path, &SyntaxError{n + 1, reason})
		}
		var err error
		switch value := unquote(raw); name {
		case "":
		case "include":
			err = c.read(beside(path, value), depth+1)
		case "include_if_exists":
			file := beside(path, value)
			if _, serr := os.Stat(file); !errors.Is(serr, fs.ErrNotExist) {
				err = c.read(file, depth+1)
			}
		case "include_dir":
			err = c.readDir(beside(path, value), depth+1)
		default:
			c.Settings = append(c.Settings, Setting{Name: name, Value: value, Raw: raw, Line: n + 1, File: path})
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = &SyntaxError{n + 1, err.Error()} // of the file that names it
			return fmt.Errorf("%s: %w", path, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readDir reads the files of a folder that PostgreSQL would, in its order.
func (c *Conf) readDir(dir string, depth int) error {
	list, err := os.ReadDir(dir) // sorted by bytes, as PostgreSQL sorts
	if err != nil {
		return err
	}
	for _, e := range list {
		name := e.Name()
		if e.IsDir() || strings.HasPrefix(name, ".") || !strings.HasSuffix(name, ".conf") {
			continue
		}
		if err := c.read(filepath.Join(dir, name), depth); err != nil {
			return err
		}
	}
	return nil
}

// beside makes a path in an include directive absolute as PostgreSQL does:
// from the folder of the file it stands in.
func beside(file, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}
