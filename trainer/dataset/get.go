package dataset

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/sethvargo/go-retry"

	"igcsearch/search/regular"
)

// GetOptions says what Get downloads and where to.
type GetOptions struct {
	// Name is "cifar10", "cifar100", which has the files of "cifar100-coarse"
	// too, or "svhn".
	Name string
	// Dir is the folder that gets the set's folder; created if missing.
	Dir string
	// URL is where the archive is, or the folder of SVHN's files; unset: the
	// official place of the set.
	URL string
	// MD5 is the checksum of CIFAR's archive in hexadecimal; unset: the
	// published one.
	MD5 string
	// Client does the requests; unset: http.DefaultClient.
	Client *http.Client
	// Pause is how long to wait before a broken connection is tried again; unset: one
	// second. Each further pause is twice as long, up to half a minute.
	Pause time.Duration
	// Stall is how long the server may send nothing before the connection is
	// given up; unset: one minute.
	Stall time.Duration
	// Progress, if set, is called when bytes arrive: done of total bytes. total
	// is -1 while it is not known. Several files are added up.
	Progress func(done, total int64)
	// Note, if set, is called at each step with a line for the user: that the set
	// exists, where a download continues, what was unpacked.
	Note func(line string)
}

// maxArchiveBytes bounds a download whose size is not known beforehand.
const maxArchiveBytes = 2 << 30

// A download that breaks is tried again so often without enoughBytes more: for about
// a minute.
const (
	maxTries    = 6
	maxPause    = 30 * time.Second
	enoughBytes = 1 << 20
)

// Published is a file that a publisher offers.
type Published struct {
	URL, MD5 string
	Bytes    int64
}

// UnreachableError says that no server sends the files of a set. People can download
// Files elsewhere and put them into Folder; then Get needs no server.
type UnreachableError struct {
	Err    error
	Folder string
	Files  []Published
}

func (e *UnreachableError) Error() string { return e.Err.Error() }
func (e *UnreachableError) Unwrap() error { return e.Err }

// Get downloads the official files of a data set, checks them and unpacks them into
// o.Dir, from where Open reads them. If the whole set is there already, Get says so
// by o.Note and downloads nothing. If the archive of CIFAR is there, Get unpacks it.
// The error is an *UnreachableError if no server can be reached.
//
// A broken download continues where it broke, after growing pauses, and at last at
// the next call. Until then the part that arrived is kept with the ending ".part". A
// downloaded file with a wrong checksum is removed.
func Get(ctx context.Context, o GetOptions) error {
	switch o.Name {
	case cifar10.name:
		return get(ctx, cifar10, o)
	case cifar100.name:
		return get(ctx, cifar100, o)
	case svhn.name:
		return get(ctx, svhn, o)
	}
	return fmt.Errorf("dataset %q: want %q, %q or %q", o.Name, cifar10.name, cifar100.name, svhn.name)
}

// source is a set that can be downloaded. All fields of o are set, except perhaps
// URL and MD5.
type source interface {
	getFiles(ctx context.Context, o GetOptions) error
}

func get(ctx context.Context, s source, o GetOptions) error {
	if o.Dir == "" {
		return fmt.Errorf("%s: no folder to download to", o.Name)
	}
	if o.Client == nil {
		o.Client = http.DefaultClient
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(done, total int64) {}
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	return s.getFiles(ctx, o)
}

func (f format) getFiles(ctx context.Context, o GetOptions) error {
	size := int64(-1)
	if o.MD5 == "" {
		o.MD5, size = f.md5, f.archiveBytes
	}
	if o.URL == "" {
		o.URL = f.archive
	}
	if at, err := f.locate(o.Dir); err == nil {
		dir := at.dir
		found, err := f.read(ctx, at)
		switch {
		case ctx.Err() != nil:
			return err
		case err != nil:
			return fmt.Errorf("%w: remove the damaged files in %s and try again", err, dir)
		case len(found.unofficial) > 0:
			o.Note(fmt.Sprintf("%s is already in %s, but these are not the published files: %s; remove the folder to "+
				"download all", f.name, dir, strings.Join(found.unofficial, ", ")))
		default:
			o.Note(fmt.Sprintf("%s is already in %s: all files are whole, nothing to download", f.name, dir))
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	unpacked, err := f.unpackThere(ctx, o)
	if err == nil && unpacked == "" {
		unpacked = f.folder
		err = o.fetch(ctx, filepath.Join(o.Dir, path.Base(f.archive)+".part"), size, func(part *os.File) error {
			o.Note(fmt.Sprintf("the checksum of %s is right, unpacking", path.Base(f.archive)))
			if err := f.install(ctx, f.layout(false), part, o.Dir); err != nil {
				return err
			}
			return os.Remove(part.Name())
		})
	}
	if err != nil {
		return byHand(fmt.Errorf("%s: %w", f.name, err), o.Dir, Published{f.archive, f.md5, f.archiveBytes})
	}
	o.Note(fmt.Sprintf("%s is in %s", f.name, filepath.Join(o.Dir, unpacked)))
	return nil
}

// unpackThere unpacks an official archive if one lies in o.Dir, the binary one rather
// than the Python one. It returns the name of the folder, "" if there is no archive.
func (f format) unpackThere(ctx context.Context, o GetOptions) (folder string, err error) {
	to, want := f.layout(false), o.MD5
	archive, err := regular.Open(filepath.Join(o.Dir, path.Base(f.archive)))
	if errors.Is(err, fs.ErrNotExist) {
		to, want = f.layout(true), f.python.md5
		archive, err = regular.Open(filepath.Join(o.Dir, f.python.archive))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer archive.Close()
	if err := syscall.Flock(int(archive.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", fmt.Errorf("lock %s: %w: is another process unpacking it?", archive.Name(), err)
	}
	n, sum, err := checksum(ctx, archive)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", archive.Name(), err)
	}
	if !strings.EqualFold(sum, want) {
		return "", fmt.Errorf("the %d bytes of %s have the MD5 checksum %s, want %s: "+
			"remove the damaged file and try again", n, archive.Name(), sum, want)
	}
	o.Note(fmt.Sprintf("the checksum of %s is right, unpacking", archive.Name()))
	return to.folder, f.install(ctx, to, archive, o.Dir)
}

// byHand makes an error an UnreachableError if no server sends the files.
func byHand(err error, folder string, files ...Published) error {
	if errors.As(err, new(*unreachable)) {
		return &UnreachableError{err, folder, files}
	}
	return err
}

// getFiles downloads those of the three files that are missing.
func (f svhnFormat) getFiles(ctx context.Context, o GetOptions) error {
	if o.URL == "" {
		o.URL = f.url
	}
	dir, err := f.locate(o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		dir = filepath.Join(o.Dir, f.folder)
	} else if err != nil {
		return err
	}
	var missing []svhnFile
	var before, total int64 // bytes
	for _, file := range []svhnFile{f.train, f.extra, f.test} {
		place := filepath.Join(dir, file.name)
		there, err := os.Open(place)
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, file)
			total += file.bytes
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		n, sum, err := checksum(ctx, there)
		if err = errors.Join(err, there.Close()); err != nil {
			return fmt.Errorf("%s: read %s: %w", f.name, place, err)
		}
		if sum != file.md5 {
			return fmt.Errorf("%s: the %d bytes of %s have the MD5 checksum %s, want %s: "+
				"remove the damaged file and try again", f.name, n, place, sum, file.md5)
		}
	}
	if len(missing) == 0 {
		o.Note(fmt.Sprintf("%s is already in %s: all files are whole, nothing to download", f.name, dir))
		return nil
	}
	for i, file := range missing {
		one := o
		one.MD5 = file.md5
		if one.URL, err = url.JoinPath(o.URL, file.name); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		one.Progress = func(done, _ int64) { o.Progress(before+done, total) }
		err := one.fetch(ctx, filepath.Join(dir, file.name+".part"), file.bytes, func(part *os.File) error {
			// The bytes are on disk before the file has its name, as in writeFile.
			return cmp.Or(part.Sync(), os.Rename(part.Name(), filepath.Join(dir, file.name)))
		})
		if err != nil {
			var rest []Published
			for _, file := range missing[i:] {
				rest = append(rest, Published{f.url + "/" + file.name, file.md5, file.bytes})
			}
			return byHand(fmt.Errorf("%s: %w", f.name, err), dir, rest...)
		}
		before += file.bytes
		o.Note(fmt.Sprintf("%s is whole", file.name))
	}
	o.Note(fmt.Sprintf("%s is in %s", f.name, dir))
	return nil
}

// fetch downloads o.URL to the file partPath, or the rest of it if there is a part.
// It checks the file against o.MD5 and calls keep, which removes it or renames it.
// size is -1 if it is not known.
func (o GetOptions) fetch(ctx context.Context, partPath string, size int64, keep func(part *os.File) error) error {
	if err := os.MkdirAll(filepath.Dir(partPath), 0o777); err != nil {
		return err
	}
	part, err := os.OpenFile(partPath, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer part.Close()
	if err := syscall.Flock(int(part.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w: is another download running?", partPath, err)
	}
	d := download{GetOptions: o, part: part, size: size}
	if err := d.fetch(ctx); err != nil {
		return err
	}
	if err := d.verify(ctx); err != nil {
		if ctx.Err() == nil {
			err = errors.Join(err, os.Remove(partPath))
		}
		return err
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return keep(part)
}

// download is a download in progress, into the file part.
type download struct {
	GetOptions
	part *os.File
	have int64 // bytes in part
	size int64 // bytes of the whole, -1: not known yet
	// answered is whether a server has begun to send the file.
	answered bool
}

// unreachable is the error of a request that got no file.
type unreachable struct {
	error
	passing bool // the same request may succeed later
}

func (e *unreachable) Unwrap() error { return e.error }

var (
	// errBroken is wrapped by errors after which another request can continue.
	errBroken = errors.New("the connection broke")
	// errAnew says that part was emptied because it does not fit the server's file.
	errAnew = errors.New("start again")
)

// fetch completes part.
func (d *download) fetch(ctx context.Context) error {
	info, err := d.part.Stat()
	if err != nil {
		return err
	}
	d.have = info.Size()
	if d.have > 0 {
		// An earlier call may have ended between the last byte and the unpacking.
		if d.verify(ctx) == nil {
			d.Progress(d.have, d.have)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.Note(fmt.Sprintf("continuing after the %s of an earlier download", humanize.Bytes(uint64(d.have))))
	}
	backoff := func() retry.Backoff {
		return retry.WithMaxRetries(maxTries, retry.WithCappedDuration(maxPause, retry.NewExponential(d.Pause)))
	}
	again, before := backoff(), d.have
	for {
		err := d.request(ctx)
		switch {
		case err == nil:
			return nil
		case err == errAnew:
			d.Note("the earlier download does not fit the server's file, starting again")
			before = 0
			continue // part is empty now, so this happens only once
		case ctx.Err() != nil, !d.mayPass(err):
			return err
		}
		if d.have >= before+enoughBytes {
			again, before = backoff(), d.have
		}
		pause, stop := again.Next()
		if stop {
			return fmt.Errorf("%w: %s are kept, try again to continue", err, humanize.Bytes(uint64(d.have)))
		}
		d.Note(fmt.Sprintf("%v after %s, trying again in %v", err, humanize.Bytes(uint64(d.have)), pause))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// mayPass reports whether another request may succeed. If no server has answered yet,
// the error is reported at once: the machine may have no network at all.
func (d *download) mayPass(err error) bool {
	var e *unreachable
	return errors.Is(err, errBroken) || d.answered && errors.As(err, &e) && e.passing
}

// request asks the server for the missing bytes of part and appends them. It returns
// nil if part is complete.
func (d *download) request(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(d.Stall, func() { cancel(fmt.Errorf("the server sent nothing for %v", d.Stall)) })
	defer watch.Stop()
	why := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.URL, nil)
	if err != nil {
		return err
	}
	// The archive is compressed. With a second compression of the transfer, the
	// positions of bytes would not be those of the file.
	req.Header.Set("Accept-Encoding", "identity")
	if d.have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.have))
	}
	resp, err := d.Client.Do(req)
	if err != nil {
		return &unreachable{why(err), true}
	}
	defer resp.Body.Close()

	size, err := d.begin(resp)
	if err != nil {
		return err
	}
	d.answered = true
	buffer := make([]byte, 128<<10)
	d.Progress(d.have, size)
	for {
		n, err := resp.Body.Read(buffer)
		if n > 0 {
			watch.Reset(d.Stall)
			if _, err := d.part.WriteAt(buffer[:n], d.have); err != nil {
				return err
			}
			d.have += int64(n)
			if d.have > maxArchiveBytes || size >= 0 && d.have > size {
				return errors.Join(fmt.Errorf("%s: the server sent more than %d bytes", d.URL, d.have-1), d.restart())
			}
			d.Progress(d.have, size)
		}
		if err == io.EOF && (size < 0 || d.have == size) {
			return nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %w", d.URL, errBroken, why(err))
		}
	}
}

// begin prepares part for the bytes of a response. It returns the size of the whole
// file, -1 if it is not known.
func (d *download) begin(resp *http.Response) (size int64, err error) {
	size = -1 // as the server says
	switch resp.StatusCode {
	case http.StatusOK: // the whole file, even if we asked for a part
		size = resp.ContentLength
		if err := d.restart(); err != nil {
			return 0, err
		}
	case http.StatusPartialContent:
		var from int64
		from, size, err = parseContentRange(resp.Header.Get("Content-Range"))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", d.URL, err)
		}
		if from != d.have {
			return 0, fmt.Errorf("%s: the server sent bytes from %d, want from %d", d.URL, from, d.have)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		// The server has no bytes after ours, whose checksum is wrong: ours are of
		// another file.
		if d.have == 0 {
			return 0, fmt.Errorf("%s: the server answered %s to a request for the whole file", d.URL, resp.Status)
		}
		if err := d.restart(); err != nil {
			return 0, err
		}
		return 0, errAnew
	default:
		passing := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500
		return 0, &unreachable{fmt.Errorf("%s: the server answered %s", d.URL, resp.Status), passing}
	}
	switch {
	case d.size >= 0 && size >= 0 && size != d.size:
		return 0, fmt.Errorf("%s: the server's file has %d bytes, want %d", d.URL, size, d.size)
	case size > maxArchiveBytes:
		return 0, fmt.Errorf("%s: the server's file has %d bytes, want at most %d", d.URL, size, maxArchiveBytes)
	case size < 0:
		size = d.size
	}
	return size, nil
}

// restart empties part.
func (d *download) restart() error {
	d.have = 0
	return d.part.Truncate(0)
}

// verify compares the checksum of part.
func (d *download) verify(ctx context.Context) error {
	n, sum, err := checksum(ctx, d.part)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.part.Name(), err)
	}
	if !strings.EqualFold(sum, d.MD5) {
		return fmt.Errorf("%s: the %d bytes have the MD5 checksum %s, want %s: the download was removed, try again",
			d.URL, n, sum, d.MD5)
	}
	return nil
}

// checksum returns the number of bytes and the MD5 of a file, which publishers give.
// It protects against accidents, not against attacks.
func checksum(ctx context.Context, file io.ReaderAt) (n int64, sum string, err error) {
	h := md5.New()
	n, err = io.Copy(h, &contextReader{ctx, io.NewSectionReader(file, 0, maxArchiveBytes+1)})
	return n, hex.EncodeToString(h.Sum(nil)), err
}

// contextReader ends with the error of its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// parseContentRange reads "bytes 5-9/10"; size is -1 for "bytes 5-9/*".
func parseContentRange(header string) (from, size int64, err error) {
	bad := fmt.Errorf("the server sent Content-Range %q, want bytes FROM-TO/SIZE", header)
	span, total, ok := strings.Cut(strings.TrimPrefix(header, "bytes "), "/")
	first, _, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 || !strings.HasPrefix(header, "bytes ") {
		return 0, 0, bad
	}
	if from, err = strconv.ParseInt(first, 10, 64); err != nil || from < 0 {
		return 0, 0, bad
	}
	if total == "*" {
		return from, -1, nil
	}
	if size, err = strconv.ParseInt(total, 10, 64); err != nil || size < from {
		return 0, 0, bad
	}
	return from, size, nil
}
