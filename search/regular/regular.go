// Package regular reads files in folders that others can write, where anything may lie under the name of a file. A
// pipe would let a reader wait for ever, a device like /dev/zero never ends, and a file with a hole of a terabyte does
// not fit into memory. Read returns an error for all of them, and returns at once.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// These errors say why something under the name of a file was not read.
var (
	ErrKind  = errors.New("it is no regular file")
	ErrLarge = errors.New("it is too large")
)

// Open opens a regular file for reading, also through symbolic links. Otherwise the error wraps ErrKind.
func Open(path string) (*os.File, error) { return open(path, 0) }

// Read returns what a regular file contains, of at most so many bytes. It follows symbolic links.
func Read(path string, most int64) ([]byte, error) { return read(path, most, 0) }

// ReadUnlinked is Read for a folder where no symbolic link belongs: a link is an error too.
func ReadUnlinked(path string, most int64) ([]byte, error) {
	return read(path, most, syscall.O_NOFOLLOW)
}

// ReadGiven is Read of a path that a user has typed. It also reads what the user's shell offers in /dev, like
// /dev/stdin and <(command), to its end.
func ReadGiven(path string, most int64) ([]byte, error) {
	if !strings.HasPrefix(path, "/dev/") {
		return Read(path, most)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = tooLarge(path, most)
	}
	return text, err
}

func tooLarge(path string, most int64) error {
	return &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: more than %d bytes", ErrLarge, most)}
}

func read(path string, most int64, flags int) ([]byte, error) {
	f, err := open(path, flags)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, tooLarge(path, most)
	}
	text := make([]byte, 0, info.Size()+1)
	for {
		n, err := f.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		switch {
		case int64(len(text)) > most: // it grows while it is read
			return nil, tooLarge(path, most)
		case errors.Is(err, io.EOF):
			return text, nil
		case err != nil:
			return nil, err
		case len(text) == cap(text):
			text = append(text, 0)[:len(text)]
		}
	}
}

// open looks at what lies there before it opens it, because opening some devices acts on them, and again after it,
// because another thing may have come under the name. O_NONBLOCK lets no pipe stop it in between.
func open(path string, flags int) (*os.File, error) {
	look := os.Stat
	if flags&syscall.O_NOFOLLOW != 0 {
		look = os.Lstat
	}
	info, err := look(path)
	if onPath := (*fs.PathError)(nil); errors.As(err, &onPath) {
		onPath.Op = "open" // as people know it
	}
	if err == nil {
		err = check(path, info)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil {
		err = check(path, info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func check(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%w but %s", ErrKind, kind(info.Mode()))}
}

// kind names what is no regular file.
func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}
