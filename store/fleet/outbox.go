package fleet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"

	"igcsearch/search/regular"
)

// outbox is a folder that holds the requests that a worker could not deliver. worker.json says
// who the worker is; 000001.json and so on are the requests in their order; the file "left"
// says that the worker has ended. A file appears whole, and is removed once it is delivered.
type outbox struct {
	dir  string
	next int // number of the next request; 0 if none waits
}

// letter is a request that waits in an outbox.
type letter struct {
	Path string          `json:"path"`
	Body json.RawMessage `json:"body"`
}

// outboxes returns the folder that holds the outboxes of all workers of an access file.
func outboxes(access string) string { return access + ".outbox" }

// put adds a request to the outbox.
func (o *outbox) put(path string, body any, worker joinRequest) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	o.next = max(o.next, 1)
	for range 2 { // a coordinator that takes the worker for gone may remove the folder meanwhile
		err = os.MkdirAll(o.dir, 0o700)
		if err == nil {
			err = writeWhole(filepath.Join(o.dir, "worker.json"), worker)
		}
		if err == nil {
			err = writeWhole(filepath.Join(o.dir, letterName(o.next)), letter{path, text})
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOutbox, err)
	}
	o.next++
	return nil
}

// letters returns the names of the requests in a folder, in their order.
func letters(dir string) (names []string, err error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, f := range list {
		n, err := strconv.Atoi(strings.TrimSuffix(f.Name(), ".json"))
		if err == nil && n > 0 && f.Name() == letterName(n) {
			names = append(names, f.Name())
		}
	}
	// After a million requests names are longer.
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	return names, err
}

func letterName(n int) string { return fmt.Sprintf("%06d.json", n) }

// maxLetter is the largest request in an outbox, in bytes: in JSON a state takes a third more.
const maxLetter = maxEpochBody/3*4 + maxBody

// aside moves what is no request out of the way of the requests that follow it.
func aside(path string, why error, note func(string)) error {
	note(fmt.Sprintf("%s is no report, so it is not delivered: %v", path, why))
	return os.Rename(path, strings.TrimSuffix(path, ".json")+".damaged")
}

// deliver passes the requests of a folder to send, in their order. It removes a request that
// was sent or was refused for good, and stops at an error that is temporary.
func deliver(dir string, send func(letter) error, note func(string)) error {
	names, err := letters(dir)
	refused, why := 0, error(nil)
	defer func() {
		if refused > 0 {
			note(fmt.Sprintf("%d reports were refused, the last one because: %v", refused, why))
		}
	}()
	for _, name := range names {
		path := filepath.Join(dir, name)
		text, err := regular.ReadUnlinked(path, maxLetter)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process delivered it
		}
		odd := errors.Is(err, regular.ErrKind) || errors.Is(err, regular.ErrLarge) || errors.Is(err, fs.ErrPermission)
		if err != nil && !odd {
			return err
		}
		var l letter
		if err == nil {
			err = json.Unmarshal(text, &l)
		}
		if err != nil {
			if err := aside(path, err, note); err != nil {
				return err
			}
			continue
		}
		if err := send(l); temporary(err) {
			return err
		} else if err != nil {
			refused, why = refused+1, err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

// clear removes an outbox that is empty.
func (o *outbox) clear() {
	if names, err := letters(o.dir); err == nil && len(names) == 0 {
		for _, name := range []string{"worker.json", "left"} {
			os.Remove(filepath.Join(o.dir, name))
		}
		halves, _ := filepath.Glob(filepath.Join(o.dir, ".*")) // temporary files of a worker that was killed
		for _, half := range halves {
			os.Remove(half)
		}
		os.Remove(o.dir)
		os.Remove(filepath.Dir(o.dir)) // fails, as it should, while there are other outboxes
		o.next = 0
	}
}

// writeWhole writes content as JSON to a file of mode 0600. The file appears under its name
// once all of it is on the disk.
func writeWhole(path string, content any) error {
	text, err := json.Marshal(content)
	if err != nil {
		return err
	}
	// Not renameio.WriteFile: it keeps the mode of the file that it replaces, and an access
	// file that others can read must become private.
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path)) // renameio does not sync the new name
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}
