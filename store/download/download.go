// Package download sends files over HTTP that are made when somebody asks for them: exports, figures, copies of a
// database.
//
// A file is made whole before its first byte is sent. So nobody reads a database at the pace of a client, and no error
// is met in the middle of an answer. Clients that ask for the same file at the same time share one. On the disk the
// file has no name while it is sent, so nothing of it is left, however the process ends.
package download

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// ErrBusy says that no more clients, or no more different files, are served at once.
var ErrBusy = errors.New("too many downloads at once: try again later")

// fresh is how old a file may be, in addition to its key, for a client to share it.
const fresh = 10 * time.Second

// Sender sends files and bounds what its clients take of the machine at once. It makes one file at a time, so that the
// memory that this takes does not grow with the number of clients.
type Sender struct {
	clients chan struct{} // full while as many clients are served as may be
	making  chan struct{} // full while a file is made
	most    int           // files at once

	mu    sync.Mutex
	files []*file // those that have clients
}

// NewSender returns a Sender for at most so many clients, and so many different files, at once.
func NewSender(clients, files int) *Sender {
	return &Sender{clients: make(chan struct{}, clients), making: make(chan struct{}, 1), most: files}
}

// file is a file and the clients that wait for it or receive it.
type file struct {
	key     string
	begun   time.Time
	clients int    // guarded by Sender.mu
	abandon func() // stops making it

	made chan struct{} // closed when the rest is set
	data *os.File      // it has no name
	size int64
	tag  string // the checksum of its contents, as an ETag
	err  error
}

// Send answers with the file that write makes at a new path. Files of the same key have the same contents. The caller
// has set the Content-Type. If there is an error, nothing was sent and the caller has to answer; for ErrBusy there is a
// header that says when to come again. A HEAD request makes no file.
func (s *Sender) Send(w http.ResponseWriter, r *http.Request, key string,
	write func(ctx context.Context, path string) error) error {
	if r.Method == http.MethodHead {
		return nil
	}
	busy := func() error {
		w.Header().Set("Retry-After", "10") // seconds
		return ErrBusy
	}
	select {
	case s.clients <- struct{}{}:
		defer func() { <-s.clients }()
	default:
		return busy()
	}
	// What is made is made for all its clients, not only for the one that came first.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	f, first := s.join(key, cancel)
	if f == nil {
		cancel()
		return busy()
	}
	leave := sync.OnceFunc(func() { s.leave(f) })
	defer leave()
	defer context.AfterFunc(r.Context(), leave)() // a file that nobody waits for any more is not made to its end
	if first {
		f.err = s.fill(ctx, f, write)
		close(f.made)
	}
	select {
	case <-f.made:
	case <-r.Context().Done():
		return r.Context().Err()
	}
	if f.err != nil {
		return f.err
	}
	w.Header().Set("ETag", f.tag)
	// A client may continue where its download broke off, but only if it says of which contents it has the beginning.
	if r.Header.Get("If-Range") == "" {
		r.Header.Del("Range")
	}
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(f.data, 0, f.size))
	return nil
}

// join returns the file of a key with one more client, and whether this client has to make it. It returns nil if there
// are as many files as may be.
func (s *Sender) join(key string, abandon func()) (f *file, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, f := range s.files {
		// Whoever waits for a file that is made slowly shares it, although it was begun long ago.
		unmade := f.data == nil
		if f.key == key && (unmade || now.Sub(f.begun) < fresh) {
			f.clients++
			return f, false
		}
	}
	if len(s.files) == s.most {
		return nil, false
	}
	f = &file{key: key, begun: now, clients: 1, abandon: abandon, made: make(chan struct{})}
	s.files = append(s.files, f)
	return f, true
}

// fill makes a file.
func (s *Sender) fill(ctx context.Context, f *file, write func(context.Context, string) error) error {
	select {
	case s.making <- struct{}{}:
		defer func() { <-s.making }()
	case <-ctx.Done():
		return ctx.Err()
	}
	data, sum, err := create(ctx, write)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.remove(f) // whoever comes now tries again
	case f.clients == 0:
		err = errors.Join(context.Canceled, data.Close())
	default:
		f.data, f.size, f.tag = data, sum.size, sum.tag
	}
	return err
}

// leave takes a client from a file, and closes the file after its last one.
func (s *Sender) leave(f *file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.clients--; f.clients > 0 {
		return
	}
	f.abandon()
	s.remove(f)
	if f.data != nil {
		f.data.Close()
	}
}

// remove takes a file from those that clients can join. s.mu is held.
func (s *Sender) remove(f *file) {
	s.files = slices.DeleteFunc(s.files, func(other *file) bool { return other == f })
}

// contents describes what a file contains.
type contents struct {
	size int64
	tag  string
}

// create makes a file and opens it, when it has no name any more.
func create(ctx context.Context, write func(context.Context, string) error) (data *os.File, c contents, err error) {
	dir, err := os.MkdirTemp("", "igcsearch-")
	if err != nil {
		return nil, c, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "download")
	if err := write(ctx, path); err != nil {
		return nil, c, err
	}
	if data, err = os.Open(path); err != nil {
		return nil, c, err
	}
	sum := sha256.New()
	if c.size, err = io.Copy(sum, data); err != nil {
		return nil, c, errors.Join(err, data.Close())
	}
	c.tag = fmt.Sprintf("%q", fmt.Sprintf("%x", sum.Sum(nil)[:16]))
	return data, c, nil
}
