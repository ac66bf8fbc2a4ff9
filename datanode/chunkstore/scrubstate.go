package chunkstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	scrubFile    = "scrub.json"
	scrubFormat  = 1
	maxScrubSize = 4 << 10 // bytes
)

// ScrubState is how far reading all chunks again has got. The zero state is
// that of a directory where it has never begun.
type ScrubState struct {
	Started time.Time   `json:"started"`        // when the latest pass began
	After   dfs.ChunkID `json:"after,omitzero"` // the last chunk that was read; 0 at the beginning
	Done    bool        `json:"done"`           // the pass has come to its end
	Chunks  int64       `json:"chunks"`         // read in the pass so far
	Bytes   int64       `json:"bytes"`          // likewise
	Damaged int64       `json:"damaged"`        // of these chunks
}

type scrubDocument struct {
	Format int `json:"format"` // 1
	ScrubState
}

// LoadScrub returns the state that was saved last, in whichever directory. It
// fails with Corrupt when a file makes no sense and there is no other; nothing
// is lost with it but the position.
func (s *Store) LoadScrub() (ScrubState, error) {
	var newest ScrubState
	var failure error
	for _, v := range s.volumes {
		if !v.answers() {
			continue
		}
		var state ScrubState
		err := v.within(hangTimeout, "read "+scrubFile, func() (err error) {
			state, err = v.loadScrub()
			return err
		})
		if err != nil {
			failure = err
			continue
		}
		if state.after(newest) {
			newest = state
		}
	}
	if newest != (ScrubState{}) {
		return newest, nil
	}
	return ScrubState{}, failure
}

// after tells whether a state is a later one than another.
func (s ScrubState) after(other ScrubState) bool {
	if !s.Started.Equal(other.Started) {
		return s.Started.After(other.Started)
	}
	if s.Done != other.Done {
		return s.Done
	}
	return s.After > other.After
}

func (v *volume) loadScrub() (ScrubState, error) {
	f, err := os.Open(filepath.Join(v.dir, scrubFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ScrubState{}, nil
	}
	if err != nil {
		return ScrubState{}, unreadable(v.dir, err)
	}
	defer f.Close() // only read from
	content, err := io.ReadAll(io.LimitReader(f, maxScrubSize))
	if err != nil {
		return ScrubState{}, unreadable(v.dir, err)
	}
	state, err := decodeScrub(content)
	if err != nil {
		return ScrubState{}, dfs.Errorf(dfs.Corrupt, "%s in %s is damaged (%w); it begins anew", scrubFile, v.dir, err)
	}
	return state, nil
}

func decodeScrub(content []byte) (ScrubState, error) {
	var document scrubDocument
	if err := json.Unmarshal(content, &document); err != nil {
		return ScrubState{}, err
	}
	state := document.ScrubState
	switch {
	case document.Format != scrubFormat:
		return ScrubState{}, fmt.Errorf("format %d is not known", document.Format)
	case state.Chunks < 0 || state.Bytes < 0 || state.Damaged < 0:
		return ScrubState{}, errors.New("a count is negative")
	}
	return state, nil
}

// SaveScrub replaces the saved state durably, in the first directory that
// takes it. It fails with Internal when none does.
func (s *Store) SaveScrub(state ScrubState) error {
	content, err := json.MarshalIndent(scrubDocument{Format: scrubFormat, ScrubState: state}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the state of the scrubber: %w", err)
	}
	failure := dfs.Errorf(dfs.Internal, "%s cannot be written: no data directory is in service", scrubFile)
	for _, v := range s.volumes {
		if !v.answers() {
			continue
		}
		err = v.within(hangTimeout, "write "+scrubFile, func() error {
			return v.disk.writeFile(filepath.Join(v.dir, scrubFile), append(content, '\n'))
		})
		if err == nil {
			return nil
		}
		failure = dfs.Errorf(dfs.Internal, "%s in %s could not be written: %w", scrubFile, v.dir, reason(err))
	}
	return failure
}
