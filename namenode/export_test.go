package namenode

// SetRoom changes who says whether there is room for more log.
func (c *Config) SetRoom(room func() error) { c.room = room }
