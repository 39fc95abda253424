package dataset

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// layout is what an official archive contains.
type layout struct {
	folder string
	python bool
	files  map[string]packed // by name
}

// packed is a file in an archive.
type packed struct {
	bytes  int64
	exact  bool // bytes is its size; otherwise it has at most so many
	needed bool // an archive without it is refused
}

// layout is that of the set's Python version, or of its binary version.
func (f format) layout(python bool) layout {
	text := packed{bytes: maxNamesBytes}
	if python {
		p := f.python
		l := layout{p.folder, true, map[string]packed{p.meta: text, "readme.html": text}}
		for _, name := range p.train {
			l.files[name] = packed{bytes: maxPickleBytes(f.trainRecords), needed: true}
		}
		l.files[p.test] = packed{bytes: maxPickleBytes(f.testRecords), needed: true}
		return l
	}
	l := layout{f.folder, false, map[string]packed{f.names: text}}
	for _, name := range f.others {
		l.files[name] = text
	}
	for name, records := range f.dataFiles() {
		l.files[name] = packed{int64(records) * int64(f.recordBytes()), true, true}
	}
	return l
}

// install unpacks an archive (tar.gz) to dir, as the folder of its layout. The folder
// is complete or does not exist.
func (f format) install(ctx context.Context, l layout, archive io.Reader, dir string) error {
	// The name is always the same, so that the rest of a killed process is removed.
	// The lock on the download prevents two processes at the same time.
	temp := filepath.Join(dir, "."+l.folder+".unpacking")
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.Mkdir(temp, 0o777); err != nil {
		return err
	}
	err := l.unpack(ctx, archive, temp)
	if err == nil {
		_, err = f.read(ctx, place{temp, l.python})
	}
	if err == nil {
		err = os.Rename(temp, filepath.Join(dir, l.folder))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return nil
}

// unpack writes the files of the set to dir. An entry that would lie elsewhere, or
// is neither a plain file nor a folder, is an error. Files that do not belong to the
// set are ignored. It never writes more bytes than the set has.
func (l layout) unpack(ctx context.Context, archive io.Reader, dir string) error {
	missing := map[string]bool{}
	most := int64(16 << 20) // bytes of the tar stream: headers and what is ignored
	for name, f := range l.files {
		most += f.bytes
		if f.needed {
			missing[name] = true
		}
	}

	unzipped, err := gzip.NewReader(&contextReader{ctx, archive})
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	stream := io.LimitReader(unzipped, most)
	files := tar.NewReader(stream)
	for {
		header, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		// A name that is not clean ("./x") is allowed. A name that leads out of the
		// folder, or would do so on another system, is not.
		if !filepath.IsLocal(header.Name) || strings.ContainsAny(header.Name, "\\\x00") {
			return fmt.Errorf("unpack: entry %q leads out of the folder, want %s/FILE", header.Name, l.folder)
		}
		switch header.Typeflag {
		case tar.TypeReg:
		case tar.TypeDir, tar.TypeXGlobalHeader:
			continue
		default:
			return fmt.Errorf("unpack: entry %q has type %q, want plain files and folders only", header.Name,
				header.Typeflag)
		}
		folder, name := path.Split(path.Clean(header.Name))
		if folder != l.folder+"/" {
			continue
		}
		f, ok := l.files[name]
		switch {
		case !ok:
			continue
		case f.exact && header.Size != f.bytes:
			return fmt.Errorf("unpack: entry %q has %d bytes, want %d", header.Name, header.Size, f.bytes)
		case header.Size > f.bytes:
			return fmt.Errorf("unpack: entry %q has %d bytes, want at most %d", header.Name, header.Size, f.bytes)
		}
		delete(missing, name)
		if err := writeFile(filepath.Join(dir, name), files); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
	}
	// The tar ends before the stream, which has its checksum at the end.
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	for name := range missing {
		return fmt.Errorf("unpack: the archive has no %s/%s", l.folder, name)
	}
	return nil
}

// writeFile copies r to a new file.
func writeFile(path string, r io.Reader) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, r)
	if err == nil {
		// The bytes are on disk before install renames the folder. So a folder
		// that exists is complete, even after a power failure.
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
