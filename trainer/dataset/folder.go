package dataset

import (
	"cmp"
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
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/google/renameio/v2"
	"github.com/sourcegraph/conc/pool"

	"igcsearch/search/regular"
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
	size, resize int // 0: no views are wanted
	decoders     int // goroutines
	passed       []LeftOut
}

// LeftOut is a file of a folder that is no picture of its set.
type LeftOut struct {
	Name   string // in the folder, with slashes; quoted if it has characters that cannot be printed
	Reason string
	// Kind is the same for files that are passed over for the same reason: an ending
	// like ".webp", or where they are. It is "" for a picture that cannot be read.
	Kind string
}

// These are further kinds of files that are passed over.
const (
	withoutEnding = "without an ending"
	besideClasses = "beside the folders of the classes"
	belowClass    = "in folders below a class"
)

func (f *folder) passOver(name, kind string) {
	reason := "it lies " + kind
	if kind != besideClasses && kind != belowClass {
		reason = "its name does not end in .jpg, .jpeg or .png"
	}
	f.passed = append(f.passed, LeftOut{shown(name), reason, kind})
}

// shown is a name as it can be printed.
func shown(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }) || !utf8.ValidString(name) {
		return strconv.Quote(name)
	}
	return name
}

// index is the content of the file indexName.
type index struct {
	Version  int        `json:"version"`
	Pictures []*picture `json:"pictures"`
}

// picture is a file of a folder and what is known about it. It is valid while
// nothing that the file system says of the file changes. Programs can set the time
// of modification (cp -p, touch -r, rsync --times), but not the time of change,
// which is the clock's when the content or the name was last changed.
type picture struct {
	Name     string `json:"name"`     // in the folder, with slashes
	Bytes    int64  `json:"bytes"`    // -1: unknown, and the picture is not stored
	Modified int64  `json:"modified"` // all times are nanoseconds since 1970
	Changed  int64  `json:"changed,omitempty"`
	Inode    uint64 `json:"inode,omitempty"`
	// Looked is when the content was read.
	Looked int64 `json:"looked,omitempty"`
	// Sum is the SHA-256 of the file in hexadecimal, "" before it was read.
	Sum string `json:"sum,omitempty"`
	// Error says why the picture cannot be read; "" if it can.
	Error string `json:"error,omitempty"`
	// Views has the sums of a training picture without augmentation, for each
	// size that was used.
	Views []evaluated `json:"views,omitempty"`
}

// settled is how long before a look the last change of a file must be. The clock of
// a file system may stand still for two seconds, so a file that is changed just
// before the look and once more after it has the same times.
const settled = 2 * time.Second

// rests reports whether the file of p is still as it was when k was stored.
func (p *picture) rests(k *picture) bool {
	return k.Bytes == p.Bytes && k.Modified == p.Modified && k.Changed == p.Changed && k.Inode == p.Inode &&
		k.Changed+int64(settled) < k.Looked
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
	if err := f.trainable(classes, train); err != nil {
		return fail(err)
	}
	unreadable := unreadable(train, test)
	for _, s := range []*Split{&train, &test} {
		var good []int
		for i, p := range s.files {
			if p.Error == "" {
				good = append(good, i)
			}
		}
		if len(good) == 0 {
			return fail(fmt.Errorf("no picture like %s can be read: %s", f.path(s.files[0].Name), s.files[0].Error))
		}
		*s = s.shrink(good, 0)
	}
	s := &Set{Name: o.Name, Classes: classes, C: Channels, H: f.size, W: f.size, folder: f, Unreadable: unreadable,
		Passed: f.passed}
	if err := s.split(o, train, test, balanced); err != nil {
		return nil, err
	}
	return s, nil
}

// statistics are those of Set.statistics, from the sums over each picture.
func (f *folder) statistics(pictures []*picture) (mean, std [Channels]float32) {
	var n uint64
	var total evaluated
	for _, p := range pictures {
		n += uint64(f.size * f.size)
		v := p.seen(f)
		for c := range Channels {
			total.Sum[c] += v.Sum[c]
			total.Squares[c] += v.Squares[c]
		}
	}
	for c := range Channels {
		mean[c], std[c] = moments(n, total.Sum[c], total.Squares[c])
	}
	return mean, std
}

// unreadable lists the pictures that cannot be read.
func unreadable(splits ...Split) (list []LeftOut) {
	for _, s := range splits {
		for _, p := range s.files {
			if p.Error != "" {
				list = append(list, LeftOut{Name: shown(p.Name), Reason: p.Error})
			}
		}
	}
	return list
}

// trainable returns an error if no training picture of a class can be read.
func (f *folder) trainable(classes []string, train Split) error {
	good := make([]bool, len(classes))
	for i, p := range train.files {
		good[train.Labels[i]] = good[train.Labels[i]] || p.Error == ""
	}
	for i, p := range train.files {
		if !good[train.Labels[i]] {
			return fmt.Errorf("no picture like %s can be read: %s: class %s has none to train on", f.path(p.Name), p.Error,
				shown(classes[train.Labels[i]]))
		}
	}
	return nil
}

// Inspection is what Inspect finds in a folder.
type Inspection struct {
	Classes     int
	Train, Test int       // pictures that can be read
	LeftOut     []LeftOut // all other files
}

// Inspect reads all pictures of a folder once, as Open does, and lists the files that
// are left out. It returns an error, beside what it found, if Open would refuse the
// folder.
func Inspect(ctx context.Context, dir string) (Inspection, error) {
	f := &folder{dir: dir, decoders: decoders()}
	classes, train, test, err := f.list()
	if err == nil {
		err = f.look(ctx, train, test)
	}
	if ctx.Err() == nil && err == nil {
		err = f.trainable(classes, train)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", folderName, err)
	}
	found := Inspection{Classes: len(classes), LeftOut: append(unreadable(train, test), f.passed...)}
	for split, n := range map[*Split]*int{&train: &found.Train, &test: &found.Test} {
		*n = split.Len() - len(unreadable(*split))
	}
	slices.SortFunc(found.LeftOut, func(a, b LeftOut) int { return cmp.Compare(a.Name, b.Name) })
	return found, err
}

// list finds the classes and the files of the pictures, in the order of their
// names.
func (f *folder) list() (classes []string, train, test Split, err error) {
	fail := func(err error) ([]string, Split, Split, error) { return nil, Split{}, Split{}, err }
	if f.dir == "" {
		err := fmt.Errorf("%w: no data folder is named: want one with folders train and test", fs.ErrNotExist)
		return fail(missing(err, "", ""))
	}
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
		err := fmt.Errorf("%w: there is no folder train in %s: %s", fs.ErrNotExist, f.dir, want)
		if at, what := huggingFace(f.dir); at != "" {
			err = fmt.Errorf("%w; %s is a file for %s, which cannot be read: write its pictures as PNG files", err, at, what)
		}
		return fail(missing(err, "", ""))
	case len(found) == 1:
		err := fmt.Errorf("%w: there is no folder test or val in %s: %s", fs.ErrNotExist, f.dir, want)
		if other := filepath.Join(f.dir, "validation"); exists(other) { // as HuggingFace calls it
			err = fmt.Errorf("%w; call %s val", err, other)
		}
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
		} else {
			f.passOver(path.Join(part, e.Name()), besideClasses)
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
		p := &picture{Name: path.Join(part, class, e.Name())}
		switch {
		case strings.HasPrefix(e.Name(), "."):
			continue
		case e.IsDir():
			if err := f.below(p.Name); err != nil {
				return err
			}
			continue
		case !slices.Contains([]string{".jpg", ".jpeg", ".png"}, kind):
			f.passOver(p.Name, cmp.Or(kind, withoutEnding))
			continue
		}
		// A file may be a link, which os.Stat follows and e.Info does not. A link
		// that leads nowhere is a file that cannot be read.
		info, err := os.Stat(f.path(p.Name))
		switch {
		case err != nil:
			p.Error, p.Bytes = reason(err), -1
		case info.IsDir(): // a link to a folder
			f.passOver(p.Name, belowClass)
			continue
		case !info.Mode().IsRegular(): // reading a pipe would wait for ever
			p.Error, p.Bytes = "it is not a regular file", -1
		default:
			p.Bytes, p.Modified = info.Size(), info.ModTime().UnixNano()
			if system, ok := info.Sys().(*syscall.Stat_t); ok {
				p.Changed, p.Inode = system.Ctim.Nano(), system.Ino
			}
		}
		to.files = append(to.files, p)
		to.Labels = append(to.Labels, label)
	}
	if to.Len() == before && part == "train" {
		has := ""
		if i := slices.IndexFunc(f.passed, func(l LeftOut) bool {
			return strings.HasPrefix(l.Name, path.Join(part, class)+"/")
		}); i >= 0 {
			has = fmt.Sprintf(", and not files %s like %s", f.passed[i].Kind, f.passed[i].Name)
		}
		return fmt.Errorf("%s has no pictures: want .jpg, .jpeg or .png files in it%s", place, has)
	}
	return nil
}

// below passes over all files of a folder that lies in that of a class.
func (f *folder) below(name string) error {
	return filepath.WalkDir(f.path(name), func(place string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(e.Name(), ".") && e.IsDir():
			return fs.SkipDir
		case !e.IsDir() && !strings.HasPrefix(e.Name(), "."):
			relative, err := filepath.Rel(f.dir, place)
			if err != nil {
				return err
			}
			f.passOver(filepath.ToSlash(relative), belowClass)
		}
		return nil
	})
}

// reason is an error of the file system without the path, which stands beside it.
func reason(err error) string {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return err.Error()
}

// look completes all pictures from the index or by reading them. If it read any, it
// stores a new index.
func (f *folder) look(ctx context.Context, train, test Split) error {
	known := f.readIndex()
	var all, strange []*picture
	for _, s := range []*Split{&train, &test} {
		for _, p := range s.files {
			all = append(all, p)
			if k := known[p.Name]; k != nil && p.Error == "" && p.rests(k) {
				p.Sum, p.Error, p.Views, p.Looked = k.Sum, k.Error, k.Views, k.Looked
			}
			if p.Error == "" && (p.Sum == "" || f.wantsView(p)) {
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
		p.Go(func() { f.learn(one, known[one.Name]) })
	}
	p.Wait()
	// The index is also stored after an interrupt, so that the next call continues.
	f.writeIndex(all, known)
	return ctx.Err()
}

// wantsView reports whether p is a training picture whose view is not known.
func (f *folder) wantsView(p *picture) bool {
	return f.size > 0 && strings.HasPrefix(p.Name, "train/") && p.seen(f) == nil
}

// learn reads a picture. It decodes the picture unless its bytes are those that the
// index knows, nil for none.
func (f *folder) learn(p, known *picture) {
	p.Looked = time.Now().UnixNano()
	content, err := readFile(f.path(p.Name))
	if err != nil {
		// Another time the same file may be readable.
		p.Error, p.Bytes = reason(err), -1
		return
	}
	hash := sha256.Sum256(content)
	sum := hex.EncodeToString(hash[:])
	p.Views = nil
	if known != nil && known.Sum == sum {
		p.Sum, p.Views = sum, known.Views
		if !f.wantsView(p) {
			return
		}
	}
	m, err := decodePicture(content)
	if err != nil {
		p.Sum, p.Error = "", err.Error()
		return
	}
	if p.Sum = sum; !f.wantsView(p) {
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
// Of a picture that an interrupt left unread it stores what was known before.
func (f *folder) writeIndex(all []*picture, known map[string]*picture) {
	x := index{Version: indexVersion}
	for _, p := range all {
		if k := known[p.Name]; k != nil && p.Sum == "" && p.Error == "" {
			p = k
		}
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
