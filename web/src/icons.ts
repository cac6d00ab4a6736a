// The page's icons: paths in a square of 16, drawn with a line of 1.5 or filled.

export const PLAY = "M4.5 2.8v10.4L13 8z";
export const PAUSE = "M4 3h3v10H4zM9 3h3v10H9z";
export const STEP = "M3.5 3v10L10 8zM11 3h2v10h-2z";
export const STOP = "M3.5 3.5h9v9h-9z";
export const EPOCH = "M13 8a5 5 0 1 1-1.5-3.6M13 2.5v3h-3";
export const SAVE = "M8 2.5v7.2M4.8 6.8 8 9.9l3.2-3.1M3 13h10";
export const CHECK = "M3 8.5 6.5 12 13 4.5";
export const FLAG = "M4.5 14V2.5h7l-1.6 3 1.6 3h-7";
export const BRANCH = "M5 5.2v5.6M5 7.8c0 2 6 .4 6-2.6M5 5a1.6 1.6 0 1 0 0-3.2A1.6 1.6 0 0 0 5 5zM5 14.2A1.6 1.6 0 1 0 5 11a1.6 1.6 0 0 0 0 3.2zM11 5a1.6 1.6 0 1 0 0-3.2A1.6 1.6 0 0 0 11 5z";
export const BACK = "M7 3.5 2.5 8 7 12.5M3 8h10.5";
export const MORE = "M3 8h.01M8 8h.01M13 8h.01";
export const HELP = "M5.8 6a2.3 2.3 0 1 1 3.3 2c-.7.4-1.1.8-1.1 1.7M8 12.4v.1";
export const CLOSE = "M4 4l8 8M12 4l-8 8";
export const THEME_SYSTEM = "M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 1 1 0 11";
export const THEME_LIGHT = "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6zM8 1v1.4M8 13.6V15M1 8h1.4M13.6 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1";
export const THEME_DARK = "M13 9.6A5.5 5.5 0 0 1 6.4 3 5.5 5.5 0 1 0 13 9.6z";
export const EDIT = "M3 13l.6-2.8 7-7 2.2 2.2-7 7L3 13z";
export const STAR = "M8 2l1.8 3.9 4.2.5-3.1 2.9.8 4.2L8 11.4l-3.7 2.1.8-4.2L2 6.4l4.2-.5z";
export const REWIND = "M3 8a5 5 0 1 0 1.6-3.7M4.2 1.8v3h3";
export const ALERT = "M8 2.5 14 13H2zM8 6.5v3M8 11.3v.1";
export const GROW = "M8 13V3.5M4 7.3 8 3.3l4 4";
export const SHRINK = "M8 3v9.5M4 8.7l4 4 4-4";
export const DOT = "M8 4.7a3.3 3.3 0 1 0 0 6.6 3.3 3.3 0 0 0 0-6.6z";
export const RING = "M8 3.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9z";
