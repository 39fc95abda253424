package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// outbox is a folder with what a worker could not deliver: worker.json says who
// it is, 000001.json and so on are requests in their order, "left" says that the
// worker is no more. Files appear whole, under their names, and are removed once
// they are delivered.
type outbox struct {
	dir  string
	next int
}

// letter is a request that waits.
type letter struct {
	Path string          `json:"path"`
	Body json.RawMessage `json:"body"`
}

// outboxes is the folder of the outboxes of an access file's workers.
func outboxes(access string) string { return access + ".outbox" }

// put adds a request.
func (o *outbox) put(path string, body any, worker joinRequest) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	o.next = max(o.next, 1)
	// The coordinator, which takes a worker for gone, may clear the folder now.
	for range 2 {
		err = os.MkdirAll(o.dir, 0o700)
		if err == nil {
			err = writeWhole(filepath.Join(o.dir, "worker.json"), worker)
		}
		if err == nil {
			err = writeWhole(filepath.Join(o.dir, fmt.Sprintf("%06d.json", o.next)), letter{path, text})
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

// letters are the names of the requests in a folder, in their order.
func letters(dir string) (names []string, err error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, f := range list {
		number, isLetter := strings.CutSuffix(f.Name(), ".json")
		if _, err := strconv.Atoi(number); isLetter && err == nil {
			names = append(names, f.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

// deliver gives the requests to send, in their order, and removes each that is
// sent or refused for good. It stops at an error that is temporary.
func deliver(dir string, send func(letter) error, note func(string)) error {
	names, err := letters(dir)
	refused, why := 0, error(nil)
	defer func() {
		if refused > 0 {
			note(fmt.Sprintf("%d reports were not taken, at last: %v", refused, why))
		}
	}()
	for _, name := range names {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody else delivered it
		}
		if err != nil {
			return err
		}
		var l letter
		if err := json.Unmarshal(text, &l); err != nil {
			note(fmt.Sprintf("%s is damaged and left out: %v", path, err))
			os.Rename(path, strings.TrimSuffix(path, ".json")+".damaged")
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
		halves, _ := filepath.Glob(filepath.Join(o.dir, ".new-*")) // of a worker that was killed
		for _, half := range halves {
			os.Remove(half)
		}
		os.Remove(o.dir)
		os.Remove(filepath.Dir(o.dir)) // if it was the last
		o.next = 0
	}
}

// writeWhole makes a file appear with all of its content, on the disk.
func writeWhole(path string, content any) error {
	text, err := json.Marshal(content)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}
