package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// writeFile writes a file by way of a temporary one beside it: after an error the old file is there as it was, or
// none. A file that exists keeps its permissions. A symbolic link stays; the file that it points to is written.
// What is not a regular file, such as a pipe or /dev/stdout, is written directly.
func writeFile(path string, write func(io.Writer) error) error {
	if writtenDirectly(path) {
		flags := os.O_WRONLY | os.O_APPEND
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
			flags |= unix.O_NONBLOCK // one that nobody reads would let this wait for ever
		}
		file, err := os.OpenFile(path, flags, 0)
		if errors.Is(err, unix.ENXIO) {
			return fmt.Errorf("write %s: no process reads this pipe: start one first", path)
		}
		if err != nil {
			return err
		}
		err = write(file)
		return errors.Join(err, file.Close())
	}
	file, target, err := pendingFile(path)
	if err != nil {
		return err
	}
	defer file.Cleanup()
	if err := write(file); err != nil {
		return namingFile(path, target, err)
	}
	return namingFile(path, target, file.CloseAtomicallyReplace())
}

// writtenDirectly reports whether a path is written as it is, because it is not a regular file.
func writtenDirectly(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.Mode().IsRegular() || strings.HasPrefix(path, "/dev/")
}

// pendingFile creates the temporary file that will take the place of the file that a path means, its target.
func pendingFile(path string) (file *renameio.PendingFile, target string, err error) {
	if target, err = followLinks(path); err != nil {
		return nil, "", fmt.Errorf("write %s: %w", path, err)
	}
	file, err = renameio.NewPendingFile(target, renameio.WithTempDir(filepath.Dir(target)),
		renameio.WithPermissions(0o666), renameio.WithExistingPermissions())
	return file, target, namingFile(path, target, err)
}

// followLinks returns the path that a chain of symbolic links ends at, whether a file is there or not.
func followLinks(path string) (string, error) {
	for range 40 { // as many as Linux follows
		link, err := os.Readlink(path)
		if err != nil {
			return path, nil // not a link
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	return "", errors.New("too many levels of symbolic links")
}

// namingFile makes an error of the file system name the file that was to be written, and not the temporary one
// beside its target. It leaves errors about other files as they are.
func namingFile(path, target string, err error) error {
	var file *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &link):
		return fmt.Errorf("write %s: %w", path, link.Err)
	case errors.As(err, &file) &&
		(file.Path == target || strings.HasPrefix(filepath.Base(file.Path), "."+filepath.Base(target))):
		return fmt.Errorf("write %s: %w", path, file.Err)
	}
	return err
}

// checkOutput reports now, before any work, why writeFile could not write the file of a flag. The file must not be
// one of those that the command reads. "" is no file.
func checkOutput(flag, path string, inputs ...string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder: give another file by %s", path, flag)
	}
	for _, input := range inputs {
		for _, part := range []struct{ suffix, what string }{
			{"", "the database"}, {"-wal", "a part of the database"}, {"-shm", "a part of the database"},
			{"-journal", "a part of the database"},
		} {
			other, e := os.Stat(input + part.suffix)
			if err == nil && e == nil && os.SameFile(info, other) ||
				filepath.Clean(input+part.suffix) == filepath.Clean(path) {
				return fmt.Errorf("%s is %s %s, which it would replace: give another file by %s", path, part.what,
					input, flag)
			}
		}
	}
	if err := tryOutput(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: create the folder, or give another file by %s", err, flag)
	} else if err != nil {
		return fmt.Errorf("%w: give another file by %s", err, flag)
	}
	return nil
}

// tryOutput does what writeFile does first, and leaves nothing.
func tryOutput(path string) error {
	if writtenDirectly(path) {
		if err := unix.Access(path, unix.W_OK); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		return nil
	}
	file, _, err := pendingFile(path)
	if err != nil {
		return err
	}
	return file.Cleanup()
}
