//! The launcher: one driver, so many workers, and nobody left behind. It makes the job, starts the driver, and the workers
//! once the driver takes connections. Workers hang on a pipe of the launcher's: when that ends, however it ends, they end.
