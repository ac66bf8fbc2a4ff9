package namenode

import (
	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// SetRoom changes who says whether there is room for more log.
func (c *Config) SetRoom(room func() error) { c.room = room }

// FillMemory has the state remember so many other requests that all earlier ones
// are forgotten. Nothing goes through the log.
func (n *NameNode) FillMemory() error {
	var oldest uint64
	for whole := true; whole || oldest < n.appliedIndex(); {
		var index uint64
		n.machine.Read(func(s *fsm.State) { index = s.AppliedIndex() })
		group := make([][]byte, 64)
		for i := range group {
			group[i] = fsm.Encode(&fsm.Mkdir{Path: dfs.Root, Parents: true}, dfs.NewRequestID(), n.config.Now())
		}
		if _, err := n.machine.ApplyGroup(index, fsm.EncodeGroup(group)); err != nil {
			return err
		}
		n.machine.Read(func(s *fsm.State) { oldest, whole = s.Memory() })
	}
	return nil
}
