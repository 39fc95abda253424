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
)

// writeFile writes a file by way of a temporary one beside it: after an error the old file is there as it was, or
// none. A file that exists keeps its permissions. A symbolic link stays; the file that it points to is written.
// What is not a regular file, such as a pipe or /dev/stdout, is written directly.
func writeFile(path string, write func(io.Writer) error) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() || strings.HasPrefix(path, "/dev/") {
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		err = write(file)
		return errors.Join(err, file.Close())
	}
	target, err := followLinks(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	file, err := renameio.NewPendingFile(target, renameio.WithTempDir(filepath.Dir(target)),
		renameio.WithPermissions(0o666), renameio.WithExistingPermissions())
	if err != nil {
		return namingFile(path, target, err)
	}
	defer file.Cleanup()
	if err := write(file); err != nil {
		return namingFile(path, target, err)
	}
	return namingFile(path, target, file.CloseAtomicallyReplace())
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
	case errors.As(err, &file) && strings.HasPrefix(filepath.Base(file.Path), "."+filepath.Base(target)):
		return fmt.Errorf("write %s: %w", path, file.Err)
	}
	return err
}

// notFolder refuses to write a file where a folder is.
func notFolder(flag, path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder: give another file by %s", path, flag)
	}
	return nil
}
