package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"igcsearch/search"
	"igcsearch/search/regular"
)

// sealed is a JSON file: a body and the SHA-256 of its bytes.
type sealed struct {
	Sum  string          `json:"sha256"`
	Body json.RawMessage `json:"body"`
}

// seal returns the content of the file at a path that holds v.
func seal(path string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "{\"sha256\":%q,\"body\":%s}\n", sum(path, body), body), nil
}

// sum is the checksum of a file. It counts in the name of the file and of its folder, because a file that was copied to
// the place of another trial would be taken for a result of that. The folder of study.json may have any name.
func sum(path string, body []byte) string {
	dir, name := filepath.Split(path)
	if name != "study.json" {
		name = filepath.Base(dir) + "/" + name
	}
	h := sha256.Sum256(append([]byte(name+"\n"), body...))
	return hex.EncodeToString(h[:])
}

// readSealed reads into v what seal wrote to a file of at most so many bytes. The error is
// ErrDamaged (wrapped) if the file does not hold what seal wrote, and errContent if v cannot be
// read from that.
func readSealed(path string, most int64, v any) error {
	text, err := read(path, most)
	if err != nil {
		return err
	}
	var s sealed
	if json.Unmarshal(text, &s) != nil {
		return ErrDamaged
	}
	if sum(path, s.Body) != s.Sum {
		return ErrDamaged
	}
	if err := json.Unmarshal(s.Body, v); err != nil {
		return fmt.Errorf("%w: %w", errContent, err)
	}
	return nil
}

// read reads a file of at most so many bytes. It opens a file again that was replaced while an
// NFS client opened it.
func read(path string, most int64) (text []byte, err error) {
	for range 3 {
		if text, err = regular.ReadUnlinked(path, most); !errors.Is(err, syscall.ESTALE) {
			break
		}
	}
	return text, err
}

// put writes a file that appears under its name once all of it is on the disk. Readers skip
// renameio's temporary names, which begin with a dot. The name is certain to last after
// syncFolder only. f.mu need not be held.
func put(path string, content []byte) error {
	f, err := pending(path, content)
	if err != nil {
		return err
	}
	defer f.Cleanup()
	return f.CloseAtomicallyReplace() // its Close is where NFS says that the disk is full
}

// pending writes a temporary file beside path.
func pending(path string, content []byte) (*renameio.PendingFile, error) {
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o666))
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(content); err != nil {
		f.Cleanup()
		return nil, err
	}
	return f, nil
}

// putFirst writes v to a file, unless the file is there already. renameio always replaces, so
// a hard link decides here which of several processes is the first.
func putFirst(path string, v any) error {
	content, err := seal(path, v)
	if err != nil {
		return err
	}
	f, err := pending(path, content)
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if err := f.Sync(); err != nil {
		return err
	}
	err = os.Link(f.Name(), path)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EPERM) {
		// The file system has no hard links. Two processes that get here at the same moment
		// with the same study write the same file.
		err = f.CloseAtomicallyReplace()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder writes the names in a folder to the disk.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err // some network file systems refuse to sync a folder, and need not do it
	}
	return nil
}

// number returns the number of a trial, an attempt or an epoch as it stands in names of files.
func number(n int) string { return fmt.Sprintf("%04d", n) }

// beginFile is begin.json.
type beginFile struct {
	Worker  string    `json:"worker"`
	Token   string    `json:"token"` // random, 16 bytes
	Retry   bool      `json:"retry"` // the attempt trains nothing: people asked for another try
	Until   int       `json:"until"`
	From    []segment `json:"from"` // the epochs that the attempt goes on from
	Note    string    `json:"note"`
	Lost    string    `json:"lost"` // why the attempt before is lost; "" if it had ended
	Started time.Time `json:"started"`
	Commit  string    `json:"commit"`
	Go      string    `json:"go"`
	CPU     string    `json:"cpu"`
	ISA     string    `json:"isa"`
	Device  string    `json:"device"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Args    []string  `json:"args"`
	Job     string    `json:"job"`
}

// segment says which attempt measured the next epochs of a history: those after the segment
// before, up to Until.
type segment struct {
	Attempt int `json:"attempt"`
	Until   int `json:"until"`
}

func (b *beginFile) attempt() search.Attempt {
	return search.Attempt{Started: b.Started, Commit: b.Commit, GoVersion: b.Go, CPU: b.CPU, ISA: b.ISA,
		Device: b.Device, Host: b.Host, PID: b.PID, Args: b.Args, Job: b.Job}
}

// epochFile is epoch-NNNN.json: an epoch, and the checksum of the state after it.
type epochFile struct {
	Epoch search.Epoch `json:"epoch"`
	State string       `json:"state_sha256"`
	Time  time.Time    `json:"time"` // for people
}

func newEpochFile(e search.Epoch, state []byte) epochFile {
	sum := sha256.Sum256(state)
	return epochFile{Epoch: e, State: hex.EncodeToString(sum[:]), Time: time.Now()}
}

// endFile is end.json.
type endFile struct {
	Status  search.Status  `json:"status"` // of the attempt's outcome
	Stands  search.Status  `json:"stands"` // of the trial after it: pending if a failure is tried again
	Failure search.Failure `json:"failure"`
	Message string         `json:"message"`
	Time    time.Time      `json:"time"` // for people
}
