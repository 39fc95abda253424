package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/sourcegraph/conc/pool"

	"igcsearch/regular"
)

const (
	folderName = "folder"
	// indexName is a file in the folder. It only saves time: if it is damaged, the
	// pictures are decoded again.
	indexName    = ".igcsearch-index.json"
	indexVersion = 1
	maxClasses   = 1 << 16 // labels have 16 bits
)

// folder is a set of JPEG and PNG files, DIR/train/CLASS/FILE, and
// DIR/test/CLASS/FILE or DIR/val/CLASS/FILE.
type folder struct {
	dir          string
	size, resize int
	decoders     int // goroutines
}

// index is the content of the file indexName.
type index struct {
	Version  int        `json:"version"`
	Pictures []*picture `json:"pictures"`
}

// picture is a file of a folder and what is known about it. It is valid while the
// size and the time of the file do not change.
type picture struct {
	Name     string `json:"name"`     // in the folder, with slashes
	Bytes    int64  `json:"bytes"`    // -1: unknown, and the picture is not stored
	Modified int64  `json:"modified"` // nanoseconds since 1970
	// Sum is the SHA-256 of the file in hexadecimal, "" before it was read.
	Sum string `json:"sum,omitempty"`
	// Error says why the picture cannot be read; "" if it can.
	Error string `json:"error,omitempty"`
	// Views has the sums of a training picture without augmentation, for each
	// size that was used.
	Views []evaluated `json:"views,omitempty"`
}

// evaluated has the sums of each channel of a view for evaluation.
type evaluated struct {
	Size    int              `json:"size"`
	Resize  int              `json:"resize"`
	Sum     [Channels]uint64 `json:"sum"`
	Squares [Channels]uint64 `json:"squares"`
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

// seen returns the sums of the view for the sizes of f; nil if they are not known.
func (p *picture) seen(f *folder) *evaluated {
	for i := range p.Views {
		if v := &p.Views[i]; v.Size == f.size && v.Resize == f.resize {
			return v
		}
	}
	return nil
}

func openFolder(ctx context.Context, o Options) (*Set, error) {
	fail := func(err error) (*Set, error) { return nil, fmt.Errorf("%s: %w", folderName, err) }
	if o.Dir == "" {
		err := fmt.Errorf("%w: no data folder is named: want one with folders train and test", fs.ErrNotExist)
		return fail(missing(err, "", ""))
	}
	if o.Size < 1 || o.Resize < o.Size {
		return fail(fmt.Errorf("size is %d and resize %d: want 1 or more, and resize no less than size", o.Size,
			o.Resize))
	}
	f := &folder{dir: o.Dir, size: o.Size, resize: o.Resize, decoders: decoders()}
	classes, train, test, err := f.list()
	if err != nil {
		return fail(err)
	}
	if err := f.look(ctx, train, test); err != nil {
		return fail(err)
	}
	var unreadable []string
	for _, s := range []*Split{&train, &test} {
		var good []int
		for i, p := range s.files {
			if p.Error == "" {
				good = append(good, i)
			} else {
				unreadable = append(unreadable, p.Name)
			}
		}
		if len(good) == 0 {
			return fail(fmt.Errorf("no picture like %s can be read: %s", f.path(s.files[0].Name), s.files[0].Error))
		}
		*s = s.shrink(good, 0)
	}
	s, err := split(o, classes, f.size, f.size, train, test, balanced)
	if err != nil {
		return nil, err
	}
	s.folder, s.Unreadable = f, unreadable
	var n uint64
	var total evaluated
	for _, p := range s.Train.files {
		n += uint64(f.size * f.size)
		v := p.seen(f)
		for c := range Channels {
			total.Sum[c] += v.Sum[c]
			total.Squares[c] += v.Squares[c]
		}
	}
	for c := range Channels {
		s.Mean[c], s.Std[c] = moments(n, total.Sum[c], total.Squares[c])
	}
	s.Sum = s.sum()
	return s, nil
}

// list finds the classes and the files of the pictures, in the order of their
// names.
func (f *folder) list() (classes []string, train, test Split, err error) {
	fail := func(err error) ([]string, Split, Split, error) { return nil, Split{}, Split{}, err }
	want := fmt.Sprintf("want %s and %s (or val)",
		filepath.Join(f.dir, "train", "CLASS", "*.jpg"), filepath.Join(f.dir, "test", "CLASS", "*.jpg"))
	var found []string
	for _, name := range []string{"train", "test", "val"} {
		info, err := os.Stat(filepath.Join(f.dir, name))
		if err == nil && info.IsDir() {
			found = append(found, name)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fail(err)
		}
	}
	switch {
	case len(found) == 0 || found[0] != "train":
		return fail(missing(fmt.Errorf("%w: there is no folder train in %s: %s", fs.ErrNotExist, f.dir, want), "", ""))
	case len(found) == 1:
		err := fmt.Errorf("%w: there is no folder test or val in %s: %s", fs.ErrNotExist, f.dir, want)
		return fail(missing(err, "", ""))
	case len(found) == 3:
		return fail(fmt.Errorf("%s has a folder test and a folder val: want one of them, rename the other", f.dir))
	}
	if classes, err = f.classes("train"); err != nil {
		return fail(err)
	}
	tested, err := f.classes(found[1])
	if err != nil {
		return fail(err)
	}
	if len(classes) < 2 || len(classes) > maxClasses {
		return fail(fmt.Errorf("%s has %d folders: want one for each class, 2 to %d", filepath.Join(f.dir, "train"),
			len(classes), maxClasses))
	}
	for _, name := range tested {
		if _, ok := slices.BinarySearch(classes, name); !ok {
			return fail(fmt.Errorf("%s is a class that is not in %s: want the same names",
				filepath.Join(f.dir, found[1], name), filepath.Join(f.dir, "train")))
		}
	}
	for label, class := range classes {
		if err := f.files(&train, uint16(label), "train", class); err != nil {
			return fail(err)
		}
		if _, ok := slices.BinarySearch(tested, class); ok {
			if err := f.files(&test, uint16(label), found[1], class); err != nil {
				return fail(err)
			}
		}
	}
	if test.Len() == 0 {
		return fail(fmt.Errorf("%s has no pictures: want those of a class in a folder of its name",
			filepath.Join(f.dir, found[1])))
	}
	return classes, train, test, nil
}

// classes lists the folders in a part of the set, sorted, with links to folders.
func (f *folder) classes(part string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(f.dir, part))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := os.Stat(filepath.Join(f.dir, part, e.Name()))
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// files appends the pictures of a class.
func (f *folder) files(to *Split, label uint16, part, class string) error {
	place := filepath.Join(f.dir, part, class)
	entries, err := os.ReadDir(place)
	if err != nil {
		return err
	}
	before := to.Len()
	for _, e := range entries {
		kind := strings.ToLower(path.Ext(e.Name()))
		if strings.HasPrefix(e.Name(), ".") || !slices.Contains([]string{".jpg", ".jpeg", ".png"}, kind) {
			continue
		}
		p := &picture{Name: path.Join(part, class, e.Name())}
		// A file may be a link, which os.Stat follows and e.Info does not. A link
		// that leads nowhere is a file that cannot be read.
		info, err := os.Stat(f.path(p.Name))
		switch {
		case err != nil:
			p.Error, p.Bytes = err.Error(), -1
		case info.IsDir():
			continue
		case !info.Mode().IsRegular(): // reading a pipe would wait for ever
			p.Error, p.Bytes = "it is not a regular file", -1
		default:
			p.Bytes, p.Modified = info.Size(), info.ModTime().UnixNano()
		}
		to.files = append(to.files, p)
		to.Labels = append(to.Labels, label)
	}
	if to.Len() == before && part == "train" {
		return fmt.Errorf("%s has no pictures: want .jpg, .jpeg or .png files in it", place)
	}
	return nil
}

// look completes all pictures from the index or by decoding them. If it decoded any,
// it stores a new index.
func (f *folder) look(ctx context.Context, train, test Split) error {
	known := f.readIndex()
	var all, strange []*picture
	for _, s := range []*Split{&train, &test} {
		for _, p := range s.files {
			all = append(all, p)
			if k := known[p.Name]; k != nil && p.Error == "" && k.Bytes == p.Bytes && k.Modified == p.Modified {
				p.Sum, p.Error, p.Views = k.Sum, k.Error, k.Views
			}
			if p.Error == "" && (p.Sum == "" || s == &train && p.seen(f) == nil) {
				strange = append(strange, p)
			}
		}
	}
	if len(strange) == 0 {
		return ctx.Err()
	}
	// Each goroutine has one picture in memory.
	p := pool.New().WithMaxGoroutines(f.decoders)
	for _, one := range strange {
		if ctx.Err() != nil {
			break
		}
		p.Go(func() { f.learn(one) })
	}
	p.Wait()
	// The index is also stored after an interrupt, so that the next call continues.
	f.writeIndex(all)
	return ctx.Err()
}

// learn decodes a picture.
func (f *folder) learn(p *picture) {
	m, content, onFile, err := readPicture(f.path(p.Name))
	if err != nil {
		p.Error = err.Error()
		if onFile {
			// Another time the same file may be readable.
			p.Bytes = -1
		}
		return
	}
	sum := sha256.Sum256(content)
	p.Sum = hex.EncodeToString(sum[:])
	if !strings.HasPrefix(p.Name, "train/") || p.seen(f) != nil {
		return
	}
	pixels := make([]byte, Channels*f.size*f.size)
	f.view(pixels, image.NewRGBA(image.Rect(0, 0, f.size, f.size)), m, nil, 0)
	v := evaluated{Size: f.size, Resize: f.resize}
	for c := range Channels {
		for _, x := range pixels[c*f.size*f.size : (c+1)*f.size*f.size] {
			v.Sum[c] += uint64(x)
			v.Squares[c] += uint64(x) * uint64(x)
		}
	}
	p.Views = append(p.Views, v)
}

// readIndex returns the stored pictures by name; none if there is no index.
func (f *folder) readIndex() map[string]*picture {
	text, err := regular.Read(f.path(indexName), 1<<30)
	if err != nil {
		return nil
	}
	var x index
	if json.Unmarshal(text, &x) != nil || x.Version != indexVersion {
		return nil
	}
	known := make(map[string]*picture, len(x.Pictures))
	for _, p := range x.Pictures {
		if p != nil {
			known[p.Name] = p
		}
	}
	return known
}

// writeIndex stores what is known of the pictures, atomically: two processes may
// do so at the same time. If it fails, perhaps because the folder is read-only, the
// next call decodes all pictures again.
func (f *folder) writeIndex(all []*picture) {
	x := index{Version: indexVersion}
	for _, p := range all {
		if p.Bytes >= 0 && (p.Sum != "" || p.Error != "") {
			x.Pictures = append(x.Pictures, p)
		}
	}
	text, err := json.Marshal(x)
	if err != nil {
		panic(err) // an index has no value that JSON lacks
	}
	_ = renameio.WriteFile(f.path(indexName), text, 0o644,
		renameio.WithTempDir(f.dir), renameio.WithStaticPermissions(0o644))
}
