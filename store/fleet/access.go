package fleet

import (
	crand "crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"syscall"

	"igcsearch/search/regular"
)

// Access says how to reach a coordinator. Whoever has it can read and write results, so only
// the owner of its file may read the file.
type Access struct {
	Address string `json:"address"` // "http://node1:40123"
	Token   string `json:"token"`
	// Certificate is in PEM. Clients trust it in addition to the certificates of the system.
	Certificate string `json:"certificate,omitempty"`
	// Over is set once the coordinator has ended for good. It says where the results are, and
	// tells workers that start later that there is nothing to do.
	Over string `json:"over,omitempty"`
}

// NewToken makes the token of an access file.
func NewToken() string {
	var random [32]byte
	crand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

const maxAccess = 1 << 20 // bytes; an access file is never larger

// These errors say what is wrong with an access file or an outbox.
var (
	ErrNotAccess = errors.New("it is no access file")
	ErrForeign   = errors.New("it is no access file, so it is not replaced")
	ErrWrite     = errors.New("write the access file")
	ErrOutbox    = errors.New("keep what cannot be delivered")
)

// ReadAccess reads an access file. The error wraps fs.ErrNotExist if the file does not exist,
// and ErrNotAccess if it is not an access file.
func ReadAccess(path string) (a Access, err error) {
	text, err := regular.Read(path, maxAccess)
	if err != nil && !errors.Is(err, regular.ErrKind) && !errors.Is(err, regular.ErrLarge) {
		return a, fmt.Errorf("access file %s: %w", path, err)
	}
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err == nil {
		err = a.check()
	}
	if err != nil {
		return a, fmt.Errorf("access file %s: %w: %w", path, err, ErrNotAccess)
	}
	return a, nil
}

func (a Access) check() error {
	u, err := url.Parse(a.Address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("its address is %q, want http://HOST:PORT", a.Address)
	}
	if len(a.Token) < 16 {
		return errors.New("it has no token")
	}
	return nil
}

// IsAccess reports whether a file looks like an access file.
func IsAccess(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxAccess {
		return false
	}
	_, err = ReadAccess(path)
	return err == nil
}

// Write puts the access into a file that only its owner can read, in one step. It leaves a
// file alone that says the same already, because this process may not be allowed to write it.
func (a Access) Write(path string) error {
	if old, err := ReadAccess(path); err == nil && old == a && !open(path) {
		return nil
	}
	if err := writeWhole(path, a); err != nil {
		return fmt.Errorf("%w: %w", ErrWrite, err)
	}
	return nil
}

// open reports whether the token in a file is no secret: others than the owner and the group
// can read or write the file, or it belongs to another user.
func open(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode().Perm()&0o007 != 0 || ok && s.Uid != 0 && int(s.Uid) != os.Getuid()
}

// TokenOf returns the token of an access file. It returns a new token if the file does not
// exist, or if its token is no secret.
func TokenOf(path string) (string, error) {
	text, err := regular.Read(path, maxAccess)
	if errors.Is(err, fs.ErrNotExist) {
		return NewToken(), nil
	}
	var a Access
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err == nil && len(a.Token) < 16 {
		err = errors.New("it has no token")
	}
	if err != nil {
		return "", fmt.Errorf("access file %s: %w: %w", path, err, ErrForeign)
	}
	if open(path) {
		return NewToken(), nil
	}
	return a.Token, nil
}
